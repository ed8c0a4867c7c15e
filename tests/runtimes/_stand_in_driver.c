// A stand-in for CUDA's driver with the machine's own memory: what is queued is done at once, or kept while captured.
// It counts what was allocated and not freed, and tells the capability that STAND_IN_CAPABILITY says (86).
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void (*work_t)(void);
typedef struct { int is_copy; void *to; const void *from; size_t size; work_t work; } step_t;
typedef struct { int count; step_t steps[64]; } graph_t;

static graph_t *captured;
static int live, launches;

int stand_in_live(void) { return live; }
int stand_in_launches(void) { return launches; }
static void run(step_t step) { if (step.is_copy) memcpy(step.to, step.from, step.size); else step.work(); }
static int queue(step_t step) {
    if (!captured) { run(step); return 0; }
    if (captured->count == 64) return 900;
    captured->steps[captured->count++] = step;
    return 0;
}
int stand_in_enqueue(work_t work) { return queue((step_t){0, 0, 0, 0, work}); }

int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuDeviceGetCount(int *count) { *count = getenv("STAND_IN_NO_GPU") ? 0 : 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? 101 : 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Stand-in", size); return device; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const char *stated = getenv("STAND_IN_CAPABILITY");
    int capability = stated ? atoi(stated) : 86;
    if (attribute != 75 && attribute != 76) return 1;
    *value = attribute == 75 ? capability / 10 : capability % 10;
    return device;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &live; return device; }
int cuCtxSetCurrent(void *context) { return context == &live ? 0 : 201; }

int cuMemAlloc_v2(unsigned long long *pointer, size_t size) {
    if (size > ((size_t)1 << 40)) return 2;
    *pointer = (unsigned long long)(size_t)malloc(size); live++; return 0;
}
int cuMemFree_v2(unsigned long long pointer) { free((void *)(size_t)pointer); live--; return 0; }
int cuMemHostAlloc(void **pointer, size_t size, unsigned flags) { *pointer = malloc(size); live++; return flags; }
int cuMemFreeHost(void *pointer) { free(pointer); live--; return 0; }
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t size, void *stream) {
    return stream ? queue((step_t){1, (void *)(size_t)to, from, size, 0}) : 400;
}
int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t size, void *stream) {
    return stream ? queue((step_t){1, to, (void *)(size_t)from, size, 0}) : 400;
}

int cuStreamCreate(void **stream, unsigned flags) { *stream = malloc(1); live++; return flags == 1 ? 0 : 1; }
int cuStreamDestroy_v2(void *stream) { free(stream); live--; return 0; }
int cuStreamSynchronize(void *stream) { return !stream ? 400 : captured ? 901 : 0; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return stream && event ? (int)flags : 400; }
int cuStreamBeginCapture_v2(void *stream, int mode) {
    captured = calloc(1, sizeof(graph_t)); live++;
    return stream && mode == 1 ? 0 : 1;
}
int cuStreamEndCapture(void *stream, void **graph) { *graph = captured; captured = 0; return stream ? 0 : 400; }
int cuGraphInstantiateWithFlags(void **ready, void *graph, unsigned long long flags) {
    graph_t *copy = malloc(sizeof(graph_t));
    if (!graph || flags) return 1;
    *copy = *(graph_t *)graph; *ready = copy; live++; return 0;
}
int cuGraphLaunch(void *ready, void *stream) {
    graph_t *graph = ready;
    for (int index = 0; index < graph->count; index++) run(graph->steps[index]);
    launches++;
    return stream ? 0 : 400;
}
int cuGraphDestroy(void *graph) { free(graph); live--; return 0; }
int cuGraphExecDestroy(void *ready) { free(ready); live--; return 0; }

typedef struct { struct timespec at; int recorded; } event_t;
int cuEventCreate(void **event, unsigned flags) { *event = calloc(1, sizeof(event_t)); live++; return flags & ~2u; }
int cuEventDestroy_v2(void *event) { free(event); live--; return 0; }
int cuEventRecord(void *event, void *stream) {
    event_t *one = event;
    clock_gettime(CLOCK_MONOTONIC, &one->at); one->recorded = 1;
    return stream ? 0 : 400;
}
int cuEventElapsedTime(float *milliseconds, void *before, void *after) {
    event_t *a = before, *b = after;
    if (!a->recorded || !b->recorded) return 400;
    *milliseconds = 1e3f * (b->at.tv_sec - a->at.tv_sec) + 1e-6f * (b->at.tv_nsec - a->at.tv_nsec);
    return 0;
}
