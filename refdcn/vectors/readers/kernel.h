/* What check.c wants of a kernel. Arrays are contiguous, as `refdcn vectors` has them. */
#ifndef KERNEL_H
#define KERNEL_H

typedef struct {
    int N, C_in, H, W, C_out, K_h, K_w, H_out, W_out;
    int stride[2], padding[2], dilation[2], groups, offset_groups;
} geometry;

typedef struct {
    const float *x, *offset, *weight, *mask, *bias, *grad_y; /* mask, bias may be NULL */
} inputs;

typedef struct {
    float *x, *offset, *weight, *mask, *bias; /* zeros at first; NULL as the inputs are */
} gradients;

void deform_conv2d(const geometry *g, const inputs *in, float *y);
void deform_conv2d_grad(const geometry *g, const inputs *in, const gradients *d);

#endif
