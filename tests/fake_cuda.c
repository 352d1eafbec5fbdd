/* A CUDA driver without a GPU: the functions edge_dsac calls, on host memory. Work on a stream happens at once, or, within a capture, is
   written down for the launch. Handles are larger than 32 bits. With CUDA_HEADER, NVIDIA's own prototypes check the ones here. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef CUDA_HEADER
#include CUDA_HEADER
#else
typedef int CUresult, CUdevice, CUdevice_attribute, CUstreamCaptureMode;
typedef unsigned long long CUdeviceptr;
typedef struct context *CUcontext;
typedef struct stream *CUstream;
typedef struct graph *CUgraph;
typedef struct executable *CUgraphExec;
#endif

#define HIGH ((uintptr_t)1 << 40)
#define STREAM ((CUstream)(HIGH + 1))
#define GRAPH ((CUgraph)(HIGH + 2))
#define READY ((CUgraphExec)(HIGH + 3))
#define CONTEXT ((CUcontext)(HIGH + 4))
#define INVALID 1
#define MOST 16

static struct work { void *to; const void *from; size_t size; int halve; } written[MOST];
static int count, capturing, held, fail_next;
static CUcontext current;

void fake_reset(void) { count = capturing = held = fail_next = 0; current = NULL; }
int fake_held(void) { return held; }
void fake_fail_next(int code) { fail_next = code; }

static CUresult answer(int good) {
  int code = fail_next ? fail_next : (good ? 0 : INVALID);
  fail_next = 0;
  return (CUresult)code;
}

static void now(struct work w) {
  if (!w.halve) { memmove(w.to, w.from, w.size); return; }
  for (int i = 0; i < w.halve; i++) ((float *)w.to)[i] = 0.5f * ((const float *)w.from)[i];
}

static CUresult put(CUstream stream, struct work w) {
  if (stream != STREAM || !current || count == MOST) return answer(0);
  if (capturing) written[count++] = w;
  else now(w);
  return answer(1);
}

int fake_half(void *stream, unsigned long long to, unsigned long long from, int entries) {
  return put((CUstream)stream, (struct work){(void *)(uintptr_t)to, (void *)(uintptr_t)from, 0, entries});
}

CUresult cuInit(unsigned int flags) { return answer(flags == 0); }
CUresult cuDeviceGetCount(int *out) { *out = 1; return answer(1); }
CUresult cuDeviceGet(CUdevice *out, int ordinal) { *out = 0; return answer(ordinal == 0); }
CUresult cuDeviceGetName(char *name, int size, CUdevice device) { strncpy(name, "Fake GPU", (size_t)size); return answer(device == 0); }
CUresult cuDriverGetVersion(int *out) { *out = 13000; return answer(1); }
CUresult cuDeviceGetAttribute(int *out, CUdevice_attribute which, CUdevice device) {
  *out = which == 75 ? 8 : 7;
  return answer(device == 0 && (which == 75 || which == 76));
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device) { *out = CONTEXT; return answer(device == 0); }
CUresult cuCtxSetCurrent(CUcontext context) { current = context; return answer(context == CONTEXT); }
CUresult cuStreamCreate(CUstream *out, unsigned int flags) {
  if (fail_next || flags != 1 || !current) return answer(0);
  held++; *out = STREAM; return answer(1);
}
CUresult cuStreamDestroy_v2(CUstream stream) { held--; return answer(stream == STREAM); }
CUresult cuStreamSynchronize(CUstream stream) { return answer(stream == STREAM && !capturing); }
CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t size) {
  if (fail_next) return answer(0);
  held++; *out = (CUdeviceptr)(uintptr_t)malloc(size); return answer(1);
}
CUresult cuMemFree_v2(CUdeviceptr at) { held--; free((void *)(uintptr_t)at); return answer(1); }
CUresult cuMemAllocHost_v2(void **out, size_t size) { held++; *out = malloc(size); return answer(1); }
CUresult cuMemFreeHost(void *at) { held--; free(at); return answer(1); }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
  return put(stream, (struct work){(void *)(uintptr_t)to, from, size, 0});
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
  return put(stream, (struct work){to, (void *)(uintptr_t)from, size, 0});
}
CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  capturing = 1; count = 0; return answer(stream == STREAM && mode == 1);
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph *out) { capturing = 0; held++; *out = GRAPH; return answer(stream == STREAM); }
CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph, unsigned long long flags) {
  held++; *out = READY; return answer(graph == GRAPH && flags == 0);
}
CUresult cuGraphDestroy(CUgraph graph) { held--; return answer(graph == GRAPH); }
CUresult cuGraphExecDestroy(CUgraphExec ready) { held--; return answer(ready == READY); }
CUresult cuGraphLaunch(CUgraphExec ready, CUstream stream) {
  if (ready != READY || stream != STREAM || !current) return answer(0);
  for (int i = 0; i < count; i++) now(written[i]);
  return answer(1);
}
CUresult cuGetErrorName(CUresult code, const char **out) {
  *out = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == INVALID ? "CUDA_ERROR_INVALID_VALUE" : NULL;
  return (CUresult)(*out ? 0 : INVALID);
}
