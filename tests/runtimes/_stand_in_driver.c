// A stand-in for CUDA's driver with the machine's own memory: what is queued is done at once, or kept while captured.
// It has the functions that cuda-core calls for what rexport does, counts what was allocated and not freed, and tells
// the capability that STAND_IN_CAPABILITY says (86). Where STAND_IN_DRIVER is not set there is no GPU: cuda-core loads a
// driver once for the whole process.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long long pointer_t;
typedef void (*work_t)(void);
typedef struct { int is_copy; void *to; const void *from; size_t size; work_t work; } step_t;
typedef struct { int count; step_t steps[64]; } graph_t;
typedef struct { struct timespec at; int recorded; } event_t;

static graph_t *captured;
static int live, launches;
static void *pinned[64];

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

int cuGetProcAddress_v2(const char *name, void **function, int version, pointer_t flags, int *status) {
    static void *here;
    char newer[128];
    Dl_info info;
    if (!here && dladdr(&live, &info)) here = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    snprintf(newer, sizeof newer, "%s_v2", name);
    *function = dlsym(here, newer);
    if (!*function) *function = dlsym(here, name);
    if (status) *status = !*function;
    return *function ? 0 : 500;
}
int cuGetErrorName(int error, const char **name) { *name = error == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "AN_ERROR"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "The stand-in says no"; return 0; }

int cuInit(unsigned flags) { return getenv("STAND_IN_DRIVER") ? (int)flags : 100; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuDeviceGetCount(int *count) { *count = getenv("STAND_IN_NO_GPU") ? 0 : 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? 101 : 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Stand-in", size); return device; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const char *stated = getenv("STAND_IN_CAPABILITY");
    int capability = stated ? atoi(stated) : 86;
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 0; // 0: it has no memory pools
    return device;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &live; return device; }
int cuDevicePrimaryCtxRelease_v2(int device) { return device; }
int cuCtxSetCurrent(void *context) { return context == &live ? 0 : 201; }
int cuCtxGetCurrent(void **context) { *context = &live; return 0; }
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = *greatest = 0; }

int cuMemAlloc_v2(pointer_t *pointer, size_t size) {
    if (size > ((size_t)1 << 40)) return 2;
    *pointer = (pointer_t)malloc(size); live++; return 0;
}
int cuMemFree_v2(pointer_t pointer) { free((void *)pointer); live--; return 0; }
int cuMemAllocHost_v2(void **pointer, size_t size) {
    for (int index = 0; index < 64; index++)
        if (!pinned[index]) { *pointer = pinned[index] = malloc(size); live++; return 0; }
    return 2;
}
int cuMemFreeHost(void *pointer) {
    for (int index = 0; index < 64; index++) if (pinned[index] == pointer) pinned[index] = 0;
    free(pointer); live--; return 0;
}
int cuPointerGetAttribute(void *value, int attribute, pointer_t pointer) {
    *(int *)value = 0; // of the other attributes: not managed, and the first device's
    if (attribute == 2) { // CU_POINTER_ATTRIBUTE_MEMORY_TYPE: 1 the host's, 2 the device's
        *(int *)value = 2;
        for (int index = 0; index < 64; index++) if (pinned[index] == (void *)pointer) *(int *)value = 1;
    }
    return 0;
}
int cuPointerGetAttributes(unsigned count, const int *attributes, void **values, pointer_t pointer) {
    for (unsigned index = 0; index < count; index++) cuPointerGetAttribute(values[index], attributes[index], pointer);
    return 0;
}
int cuMemcpyAsync(pointer_t to, pointer_t from, size_t size, void *stream) {
    return stream ? queue((step_t){1, (void *)to, (void *)from, size, 0}) : 400;
}

int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    *stream = malloc(1); live++; return flags == 1 ? priority : 1;
}
int cuStreamDestroy_v2(void *stream) { free(stream); live--; return 0; }
int cuStreamSynchronize(void *stream) { return !stream ? 400 : captured ? 901 : 0; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return stream && event ? (int)flags : 400; }
int cuStreamIsCapturing(void *stream, int *status) { *status = captured != 0; return stream ? 0 : 400; }
int cuStreamGetCaptureInfo(void *stream, int *status, pointer_t *id, void **graph, void *nodes, void *edges, size_t *count) {
    *status = captured != 0;
    if (id) *id = 1;
    if (graph) *graph = captured;
    if (count) *count = 0;
    return stream ? 0 : 400;
}
int cuStreamBeginCapture_v2(void *stream, int mode) {
    captured = calloc(1, sizeof(graph_t)); live++;
    return stream && mode == 1 ? 0 : 1;
}
int cuStreamEndCapture(void *stream, void **graph) { *graph = captured; captured = 0; return stream ? 0 : 400; }
int cuGraphInstantiateWithParams(void **ready, void *graph, void *parameters) {
    graph_t *copy = malloc(sizeof(graph_t));
    if (!graph) return 1;
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
// cuda-core keeps what a graph needs in an object of the graph's, if all of these are there
typedef struct { void *what; void (*destroy)(void *); } object_t;
int cuUserObjectCreate(void **object, void *what, void (*destroy)(void *), unsigned references, unsigned flags) {
    object_t made = {what, destroy};
    *object = memcpy(malloc(sizeof made), &made, sizeof made); return 0;
}
int cuUserObjectRelease(void *object, unsigned references) { return 0; }
int cuGraphRetainUserObject(void *graph, void *object, unsigned references, unsigned flags) { return 0; }
int cuGraphReleaseUserObject(void *graph, void *object, unsigned references) { return 0; }
int cuGraphNodeFindInClone(void *node, void *original, void *clone) { return 1; }
int cuGraphChildGraphNodeGetGraph(void *node, void **graph) { return 1; }
int cuGraphExecUpdate_v2(void *ready, void *graph, void *result) { return 1; }
int cuGraphGetNodes(void *graph, void **nodes, size_t *count) { *count = 0; return 0; }

int cuEventCreate(void **event, unsigned flags) { *event = calloc(1, sizeof(event_t)); live++; return flags & ~2u; }
int cuEventDestroy_v2(void *event) { free(event); live--; return 0; }
int cuEventRecord(void *event, void *stream) {
    event_t *one = event;
    clock_gettime(CLOCK_MONOTONIC, &one->at); one->recorded = 1;
    return stream ? 0 : 400;
}
int cuEventElapsedTime_v2(float *milliseconds, void *before, void *after) {
    event_t *a = before, *b = after;
    if (!a->recorded || !b->recorded) return 400;
    *milliseconds = 1e3f * (b->at.tv_sec - a->at.tv_sec) + 1e-6f * (b->at.tv_nsec - a->at.tv_nsec);
    return 0;
}
