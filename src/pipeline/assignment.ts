/** Which stage a node holds: of members by the manifest alone, the same on every node. Knows no network. */

/** Member i, in the manifest's order, holds stage i mod `stages`. */
export function assignMembers(memberIds: readonly string[], stages: number): Map<string, number> {
  return new Map(memberIds.map((nodeId, i) => [nodeId, i % stages]));
}
