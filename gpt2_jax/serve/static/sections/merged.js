export const id = "merged";

export function mount(root, app) {
  return { update() {} };
}
