import { startPlainApi, type LabApi } from '../scenario/labApi.ts';
export function startFullApi(_options: { controllers: boolean }): Promise<LabApi> {
  return startPlainApi();
}
