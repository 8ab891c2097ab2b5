/** The size of rows that cross a stage boundary: √(mean of squares). */
export function rootMeanSquare(rows: Float32Array): number {
  let sum = 0;
  for (const value of rows) sum += value * value;
  return Math.sqrt(sum / Math.max(1, rows.length));
}
