export const id = "training";

export function mount(root, app) {
  return { update() {} };
}
