export const id = "qkv";

export function mount(root, app) {
  return { update() {} };
}
