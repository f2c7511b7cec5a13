export const id = "weighted";

export function mount(root, app) {
  return { update() {} };
}
