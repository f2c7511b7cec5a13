export const id = "sampling";

export function mount(root, app) {
  return { update() {} };
}
