/* How refdcn calls a deformable convolution of a library: refdcn grade cabi:LIBRARY:NAME
 *
 *     REFDCN_EXPORTS(NAME)                     once, in C or C++; it declares what follows
 *     int NAME(const refdcn_call *)            writes y
 *     int NAME_backward(const refdcn_call *)   writes grad_x, .., grad_bias; optional
 *     int64_t NAME_workspace(const refdcn_call *)   bytes of workspace; optional
 *
 * Nothing of the call outlives it: neither pointers nor the memory behind them. What a
 * call must write holds rubbish before, and the other tensors are not to be changed.
 */
#ifndef REFDCN_H
#define REFDCN_H

#include <stdint.h>

#define REFDCN_VERSION 1 /* changes with any line of this file that a compiler sees */

/* What a function returns. Any other number refuses the call, too. */
enum {
    REFDCN_OK = 0,
    REFDCN_UNSUPPORTED = 1,  /* a right call, but this kernel does not compute it */
    REFDCN_BAD_SHAPE = 2,    /* the shapes do not fit, or a stride is 0 */
    REFDCN_OUT_OF_MEMORY = 3
};

enum { REFDCN_FLOAT64 = 1, REFDCN_FLOAT32 = 2, REFDCN_FLOAT16 = 3, REFDCN_BFLOAT16 = 4 };

enum { REFDCN_CPU = 1, REFDCN_CUDA = 2, REFDCN_METAL = 8, REFDCN_ROCM = 10 }; /* DLPack's */

typedef struct {
    void *data;         /* NULL: not given (mask, bias and their gradients) */
    int64_t shape[4];   /* of a bias: C_out, 1, 1, 1 */
    int64_t strides[4]; /* in elements, of any size: the memory may have gaps */
} refdcn_tensor;

typedef struct {
    int32_t version;   /* REFDCN_VERSION of the caller */
    int32_t dtype;     /* of every tensor */
    int32_t device;    /* where their memory is; */
    int32_t device_id; /* 0 where there is one */
    void *stream;      /* the device's queue to work in; NULL on a CPU */
    void *workspace;   /* of as many bytes as NAME_workspace asked for */
    int64_t workspace_size;
    int64_t stride[2], padding[2], dilation[2]; /* along H, along W */
    int64_t groups;         /* C_in / weight.shape[1], rounded down */
    int64_t offset_groups;  /* offset.shape[1] / (2 K_h K_w), rounded down */
    refdcn_tensor x;        /* [N, C_in, H, W] */
    refdcn_tensor offset;   /* [N, offset_groups K_h K_w 2, H_out, W_out]: the channel of
                               dy is 2 (g K_h K_w + i K_w + j), that of dx the next */
    refdcn_tensor weight;   /* [C_out, C_in / groups, K_h, K_w] */
    refdcn_tensor mask;     /* [N, offset_groups K_h K_w, H_out, W_out] */
    refdcn_tensor bias;     /* [C_out] */
    refdcn_tensor y;        /* [N, C_out, H_out, W_out], with offset's H_out, W_out;
                               this and all that follows is contiguous but grad_y */
    refdcn_tensor grad_y;   /* the gradient of y, in NAME_backward */
    refdcn_tensor grad_x, grad_offset, grad_weight, grad_mask, grad_bias;
} refdcn_call;

/* The element at (i, j, k, l), counted from data. */
static inline int64_t refdcn_at(const refdcn_tensor *t, int64_t i, int64_t j, int64_t k,
                                int64_t l)
{
    return i * t->strides[0] + j * t->strides[1] + k * t->strides[2] + l * t->strides[3];
}

#ifdef __cplusplus
#define REFDCN_BEGIN extern "C" {
#define REFDCN_END }
#else
#define REFDCN_BEGIN
#define REFDCN_END
#endif
#ifdef _WIN32
#define REFDCN_SEEN __declspec(dllexport)
#else
#define REFDCN_SEEN __attribute__((visibility("default")))
#endif

/* NAME_version tells which header the library was compiled with. */
#define REFDCN_EXPORTS(name)                                       \
    REFDCN_BEGIN                                                   \
    extern REFDCN_SEEN const int32_t name##_version;               \
    const int32_t name##_version = REFDCN_VERSION;                 \
    REFDCN_SEEN int name(const refdcn_call *);                     \
    REFDCN_SEEN int name##_backward(const refdcn_call *);          \
    REFDCN_SEEN int64_t name##_workspace(const refdcn_call *);     \
    REFDCN_END

#endif
