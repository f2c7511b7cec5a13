export const id = "journey";

export function mount(root, app) {
  return { update() {} };
}
