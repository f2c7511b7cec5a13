export const id = "softmax";

export function mount(root, app) {
  return { update() {} };
}
