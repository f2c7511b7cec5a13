export const id = "embedding";

export function mount(root, app) {
  return { update() {} };
}
