export const id = "mlp";

export function mount(root, app) {
  return { update() {} };
}
