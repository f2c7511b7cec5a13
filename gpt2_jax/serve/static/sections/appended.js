export const id = "appended";

export function mount(root, app) {
  return { update() {} };
}
