/** Questions to the worker, as promises. */

import { SiteError } from "./format";
import type { Calls, Message } from "./worker";

export class Client {
  readonly #worker: Worker;
  readonly #waiting = new Map<
    number,
    { resolve: (v: never) => void; reject: (e: Error) => void }
  >();
  #last = 0;

  constructor(url: URL, progress: (share: number, bytes: number) => void) {
    this.#worker = new Worker(url);
    this.#worker.onmessage = ({ data }) => {
      if ("progress" in data) return progress(data.progress, data.total);
      const waiting = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if ("problem" in data) waiting?.reject(new SiteError(data.problem));
      else waiting?.resolve(data.answer as never);
    };
    this.#worker.onerror = (event) => {
      const error = new SiteError(
        `the worker of the page stopped (${event.message ?? "it cannot be read"}): reload the page.`,
      );
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    };
  }

  get busy(): boolean {
    return this.#waiting.size > 0;
  }

  call<C extends keyof Calls>(call: C, ask: Calls[C]["ask"]): Promise<Calls[C]["answer"]> {
    const message: Message = { id: ++this.#last, call, ask };
    return new Promise((resolve, reject) => {
      this.#waiting.set(message.id, { resolve, reject });
      this.#worker.postMessage(message);
    });
  }
}
