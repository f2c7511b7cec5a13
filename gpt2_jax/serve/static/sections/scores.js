export const id = "scores";

export function mount(root, app) {
  return { update() {} };
}
