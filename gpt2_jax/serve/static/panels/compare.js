export const id = "compare";

export function mount(root, app) {
  return { update() {} };
}
