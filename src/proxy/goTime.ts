/** Times as kube-proxy's JSON prints them: RFC 3339, local zone, fraction without trailing zeros. */

/** Milliseconds since the epoch to text; undefined is Go's zero time. */
export function formatTime(milliseconds: number | undefined): string {
  if (milliseconds === undefined) return '0001-01-01T00:00:00Z';
  // getTimezoneOffset is minutes west of Greenwich.
  const west = new Date(milliseconds).getTimezoneOffset();
  const shifted = new Date(milliseconds - west * 60_000).toISOString();
  const fraction = shifted.slice(20, 23).replace(/0+$/, '');
  return `${shifted.slice(0, 19)}${fraction === '' ? '' : `.${fraction}`}${zone(-west)}`;
}

function zone(minutesEast: number): string {
  if (minutesEast === 0) return 'Z';
  const minutes = Math.abs(minutesEast);
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${minutesEast < 0 ? '-' : '+'}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
}
