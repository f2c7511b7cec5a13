export const id = "engine";

export function mount(root, app) {
  return { update() {} };
}
