export const id = "cache";

export function mount(root, app) {
  return { update() {} };
}
