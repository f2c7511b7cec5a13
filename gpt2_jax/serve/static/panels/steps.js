export const id = "steps";

export function mount(root, app) {
  return { update() {} };
}
