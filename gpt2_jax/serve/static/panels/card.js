export const id = "card";

export function mount(root, app) {
  return { update() {} };
}
