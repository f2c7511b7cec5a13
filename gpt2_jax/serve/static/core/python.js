// Writes the line of Python that reads the same array.

const text = (value) => JSON.stringify(value);

function keyed(rows) {
  const key = (parts) => (parts.length > 1 ? `(${parts.join(", ")})` : parts[0]);
  return `{${rows.map((row) => `${key(row.slice(0, -1))}: ${row.at(-1)}`).join(", ")}}`;
}

// Interventions as an argument; swaps hold arrays of other texts, and are named in a comment.
function changed(interventions) {
  const parts = ["heads", "mlps", "neurons"]
    .filter((name) => interventions?.[name]?.length)
    .map((name) => `${name}=${keyed(interventions[name])}`);
  if (interventions?.unmasked?.length)
    parts.push(`unmasked=[${interventions.unmasked.join(", ")}]`);
  return parts.length ? `Interventions(${parts.join(", ")})` : "";
}

// What loads the model; a lesson does not say where it is.
function loaded({ run, asked, from: { path, ema } }) {
  if (!path) return text(run.model ?? "M");
  const step = asked.step === undefined ? path : path.replace(/\d+$/, asked.step);
  return `${text(step)}${ema ? ", ema=True" : ""}`;
}

// `cell` is what `app.explain` was given, and the run that it is of; `call` is a function that the
// array goes through.
export function pythonLine(cell) {
  const { address, index, call = "", asked } = cell,
    { tokens, text: said, interventions } = asked;
  const change = changed(interventions);
  const array = `seen[${text(address)}]`;
  const lines = [
    call && `import ${call.split(".")[0]}`,
    "import gpt2_jax",
    change && "from gpt2_jax.interpret.interventions import Interventions",
    "",
    `model = gpt2_jax.load(${loaded(cell)})`,
    `seen = model.inspect(${text(tokens ?? said)}${change && `, ${change}`})`,
    `print(${call ? `${call}(${array})` : array}${index?.length ? `[${index.join(", ")}]` : ""})`,
  ];
  if (interventions?.swaps?.length) lines.push("# and with the swaps of the page");
  return lines.filter((line, i) => line !== "" || i === 3).join("\n");
}
