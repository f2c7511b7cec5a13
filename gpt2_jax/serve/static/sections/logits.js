export const id = "logits";

export function mount(root, app) {
  return { update() {} };
}
