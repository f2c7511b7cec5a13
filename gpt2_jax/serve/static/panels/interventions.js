export const id = "interventions";

export function mount(root, app) {
  return { update() {} };
}
