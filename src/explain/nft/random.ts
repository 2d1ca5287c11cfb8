/** Rules that draw a number (`numgen random mod N`). */
import type { Expr, NftRule } from './form.ts';

const moduli = new WeakMap<NftRule, number>();

/** How many numbers the rule draws from; undefined if it draws none. */
export function randomModulus(rule: NftRule): number | undefined {
  let modulus = moduli.get(rule);
  if (modulus === undefined) {
    modulus = 0;
    const look = (expr: Expr | undefined): void => {
      switch (expr?.kind) {
        case 'random':
          modulus = expr.modulus;
          break;
        case 'concat':
          expr.parts.forEach(look);
          break;
        case 'map':
          look(expr.key);
          break;
        case 'part':
          look(expr.of);
          break;
        case 'bits':
          look(expr.left);
          look(expr.right);
          break;
        default:
      }
    };
    for (const statement of rule.statements) {
      if (statement.kind === 'vmap') look(statement.key);
      else if (statement.kind === 'match') look(statement.left);
      else if (statement.kind === 'set') look(statement.value);
      else if (statement.kind === 'dnat' || statement.kind === 'snat') {
        look(statement.address);
        look(statement.port);
      }
    }
    moduli.set(rule, modulus);
  }
  return modulus === 0 ? undefined : modulus;
}
