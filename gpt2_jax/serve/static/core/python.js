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

export function pythonLine(app, address, index) {
  const { state, run } = app;
  const change = changed(state.interventions);
  const where = state.step === null || state.step === undefined ? "" : `  # step ${state.step}`;
  const said = state.tokens ? text(state.tokens) : text(state.text);
  const lines = [
    "import gpt2_jax",
    change && "from gpt2_jax.interpret.interventions import Interventions",
    "",
    `model = gpt2_jax.load(${text(run?.model ?? state.model ?? "M")})${where}`,
    `seen = model.inspect(${said}${change && `, ${change}`})`,
    `print(seen[${text(address)}]${index?.length ? `[${index.join(", ")}]` : ""})`,
  ];
  if (state.interventions?.swaps?.length) lines.push("# and with the swaps of the page");
  return lines.filter((line, i) => line !== "" || i === 2).join("\n");
}
