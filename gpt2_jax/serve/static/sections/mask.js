export const id = "mask";

export function mount(root, app) {
  return { update() {} };
}
