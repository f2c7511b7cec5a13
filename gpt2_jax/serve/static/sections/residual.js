export const id = "residual";

export function mount(root, app) {
  return { update() {} };
}
