// Effect of a threshold: an image whose score reaches it is rejected.

/** Count rejected and accepted images. */
export function counts(scores, cut) {
  let good = 0, bad = 0, overkill = 0, found = 0;
  for (const { defect, score } of scores) {
    const rejected = score >= cut;
    if (defect === "good") [good, overkill] = [good + 1, overkill + rejected];
    else [bad, found] = [bad + 1, found + rejected];
  }
  const rejected = found + overkill;
  return { good, bad, overkill, found, escapes: bad - found, precision: rejected ? found / rejected : null, f1: bad + rejected ? (2 * found) / (bad + rejected) : null };
}

/** Return the verdict on an image in a word. */
export function verdict({ defect, score }, cut) {
  const rejected = score >= cut;
  return defect === "good" ? (rejected ? "alarm" : "passed") : rejected ? "caught" : "missed";
}
