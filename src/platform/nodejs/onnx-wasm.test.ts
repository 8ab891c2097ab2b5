import { engineContract } from '../../../test/engine-contract.ts';
import { createWasmEngine } from './onnx-wasm.ts';

engineContract('wasm', createWasmEngine);
