export const id = "layernorm";

export function mount(root, app) {
  return { update() {} };
}
