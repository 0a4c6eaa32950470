/** Elements of the page. Text always goes through textContent, never through markup. */

export function byId<E extends HTMLElement>(id: string): E {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element as E;
}

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Text of the data, which may run in either direction. */
export const isolated = (text: string): HTMLElement => element("bdi", { dir: "auto" }, text);

/** A list of terms and what they say. */
export function definitions(list: HTMLElement, pairs: [string, string][]): void {
  list.replaceChildren(
    ...pairs.flatMap(([term, text]) => [
      element("dt", {}, isolated(term)),
      element("dd", {}, isolated(text)),
    ]),
  );
}

/** A row of radio buttons that look like one switch. */
export function choices(
  field: HTMLElement,
  name: string,
  options: [string, string][],
  chosen: (value: string) => void,
): void {
  for (const [value, text] of options) {
    const input = element("input", { type: "radio", name, value });
    input.addEventListener("change", () => chosen(value));
    field.append(element("label", {}, input, element("span", { dir: "auto" }, text)));
  }
}

export function check(name: string, value: string): void {
  for (const input of document.querySelectorAll<HTMLInputElement>(`input[name="${name}"]`)) {
    input.checked = input.value === value;
  }
}

export function slider(id: string, moved: (value: number) => void): HTMLInputElement {
  const input = byId<HTMLInputElement>(id);
  input.addEventListener("input", () => moved(input.valueAsNumber));
  return input;
}

/** Show a value on a slider and beside it. */
export function setSlider(id: string, value: number, text: string): void {
  const input = byId<HTMLInputElement>(id);
  input.valueAsNumber = value;
  input.setAttribute("aria-valuetext", text);
  const output = input.parentElement?.querySelector("output");
  if (output) output.textContent = text;
}

export function save(name: string, content: BlobPart, type: string): void {
  const url = URL.createObjectURL(new Blob([content], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
