export const id = "projection";

export function mount(root, app) {
  return { update() {} };
}
