// What is asked a moment after the last change, and asked anew when it changes.
import { useEffect, useState } from "../vendor/hooks.js";
import { idempotencyKey } from "../api.js";

const SETTLED_AFTER_MS = 600;

/**
 * Ask once a value has not changed for a moment; an answer to what was there before is dropped.
 * @template T
 * @param {any} value compared as JSON; undefined and null ask nothing
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {T} none what is told before, and where there is nothing to ask
 * @returns {T}
 */
export function useSettled(value, load, none) {
  const [told, setTold] = useState(none);
  const text = value === undefined || value === null ? "" : JSON.stringify(value);
  useEffect(() => {
    if (!text) {
      setTold(none);
      return undefined;
    }
    const controller = new AbortController();
    const timer = setTimeout(async () => {
      const found = await load(controller.signal).catch((error) => {
        if (!controller.signal.aborted) throw error;
        return none;
      });
      if (!controller.signal.aborted) setTold(found);
    }, SETTLED_AFTER_MS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [text]);
  return told;
}

/**
 * A key that makes a submission safe to repeat: the same for the same text, also where nobody
 * knows whether the first attempt arrived, and another one once the text has changed or `renew`
 * was called.
 * @param {string} text what is submitted
 */
export function useIdempotencyKey(text) {
  const [kept, setKept] = useState(() => ({ text, key: idempotencyKey() }));
  if (kept.text !== text) {
    kept.text = text;
    kept.key = idempotencyKey();
  }
  return { key: kept.key, renew: () => setKept({ text: kept.text, key: idempotencyKey() }) };
}

/** Whether an attempt was refused for good: nothing has been made of it. @param {any} error */
export const refusedForGood = (error) => error?.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 429;
