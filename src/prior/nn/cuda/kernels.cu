// Kernels of the layers on an NVIDIA GPU, f32. Compiled when the first layer runs there, for that card.
//
// Every sum has one order, whatever the card does at once: the same input gives the same bytes. A block has a
// multiple of 32 threads, at most 1024.

#define GLOBAL extern "C" __global__ void
// 32 bits: a division of 64 costs more than the memory access beside it.
#define MANY for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)

__device__ __forceinline__ float warp_sum(float v) {
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

__device__ __forceinline__ float warp_max(float v) {
    for (int offset = 16; offset > 0; offset >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
}

// The sum over the block, told to every thread. `part` has 32 places and may be used again at once.
__device__ float block_sum(float v, float* part) {
    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    float total = 0.0f;
    for (int i = 0; i < blockDim.x / 32; i++) total += part[i];
    return total;
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ __forceinline__ float silu_slope(float x) {
    float s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

// The normal distribution function and density.
__device__ __forceinline__ float normal_cdf(float x) { return 0.5f * (1.0f + erff(x * 0.70710678118654752f)); }
__device__ __forceinline__ float normal_pdf(float x) { return 0.39894228040143268f * expf(-0.5f * x * x); }

// ---- group normalisation: a block has one group of one image; moments [B G, 2] are (mean, 1 / deviation) ----

GLOBAL group_norm(const float* x, const float* w, const float* b, float* y, float* moments, int channels,
                  int groups, int pixels, float eps, int silu) {
    __shared__ float part[32];
    int per = channels / groups, n = per * pixels, first = blockIdx.x % groups * per;
    const float* from = x + (size_t)blockIdx.x * n;
    float* to = y + (size_t)blockIdx.x * n;
    float sum = 0.0f, squares = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += from[i];
    float mean = block_sum(sum, part) / n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) squares += (from[i] - mean) * (from[i] - mean);
    float rstd = 1.0f / sqrtf(block_sum(squares, part) / n + eps);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        int c = first + i / pixels;
        float z = (from[i] - mean) * rstd * w[c] + b[c];
        to[i] = silu ? z * sigmoid(z) : z;
    }
    if (threadIdx.x == 0) {
        moments[2 * blockIdx.x] = mean;
        moments[2 * blockIdx.x + 1] = rstd;
    }
}

__device__ __forceinline__ float before_silu(float g, float normal, float w, float b, int silu) {
    return silu ? g * silu_slope(normal * w + b) : g;
}

// gx = rstd (w dz - mean(w dz) - xhat mean(w dz xhat)); per image and channel the sums of dz xhat and dz, of
// which the gradients of w and b are the sums over the images: sums [B, 2 C].
GLOBAL group_norm_slope(const float* x, const float* w, const float* b, const float* moments, const float* g,
                        float* gx, float* sums, int channels, int groups, int pixels, int silu) {
    __shared__ float part[32];
    int per = channels / groups, n = per * pixels, first = blockIdx.x % groups * per;
    size_t at = (size_t)blockIdx.x * n;
    float mean = moments[2 * blockIdx.x], rstd = moments[2 * blockIdx.x + 1];
    float* own = sums + (size_t)(blockIdx.x / groups) * 2 * channels + first;
    for (int j = threadIdx.x / 32; j < per; j += blockDim.x / 32) {
        float plain = 0.0f, scaled = 0.0f;
        for (int p = threadIdx.x % 32; p < pixels; p += 32) {
            size_t i = at + (size_t)j * pixels + p;
            float normal = (x[i] - mean) * rstd;
            float dz = before_silu(g[i], normal, w[first + j], b[first + j], silu);
            plain += dz;
            scaled += dz * normal;
        }
        plain = warp_sum(plain);
        scaled = warp_sum(scaled);
        if (threadIdx.x % 32 == 0) {
            own[j] = scaled;
            own[channels + j] = plain;
        }
    }
    __syncthreads();
    float plain = 0.0f, scaled = 0.0f;
    for (int j = threadIdx.x; j < per; j += blockDim.x) {
        scaled += w[first + j] * own[j];
        plain += w[first + j] * own[channels + j];
    }
    plain = block_sum(plain, part) / n;
    scaled = block_sum(scaled, part) / n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        int c = first + i / pixels;
        float normal = (x[at + i] - mean) * rstd;
        float dz = before_silu(g[at + i], normal, w[c], b[c], silu);
        gx[at + i] = rstd * (w[c] * dz - plain - normal * scaled);
    }
}

// ---- layer normalisation: a warp has a row; moments [rows, 2] ----

GLOBAL layer_norm(const float* x, const float* w, const float* b, float* y, float* moments, int rows, int width,
                  float eps) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    const float* from = x + (size_t)row * width;
    float sum = 0.0f, squares = 0.0f;
    for (int c = lane; c < width; c += 32) sum += from[c];
    float mean = warp_sum(sum) / width;
    for (int c = lane; c < width; c += 32) squares += (from[c] - mean) * (from[c] - mean);
    float rstd = 1.0f / sqrtf(warp_sum(squares) / width + eps);
    for (int c = lane; c < width; c += 32) y[(size_t)row * width + c] = (from[c] - mean) * rstd * w[c] + b[c];
    if (lane == 0) {
        moments[2 * row] = mean;
        moments[2 * row + 1] = rstd;
    }
}

GLOBAL layer_norm_slope(const float* x, const float* w, const float* moments, const float* g, float* gx, int rows,
                        int width) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    size_t at = (size_t)row * width;
    float mean = moments[2 * row], rstd = moments[2 * row + 1], plain = 0.0f, scaled = 0.0f;
    for (int c = lane; c < width; c += 32) {
        plain += g[at + c] * w[c];
        scaled += g[at + c] * w[c] * (x[at + c] - mean) * rstd;
    }
    plain = warp_sum(plain) / width;
    scaled = warp_sum(scaled) / width;
    for (int c = lane; c < width; c += 32) {
        float normal = (x[at + c] - mean) * rstd;
        gx[at + c] = rstd * (g[at + c] * w[c] - plain - normal * scaled);
    }
}

// ---- sums over rows, in two steps: `chunks` partial sums a column, then theirs. Blocks of 32 x 8 threads ----

// The eight threads of each column add up; the first one has the sum.
__device__ float column_sum(float v, float* part) {
    part[threadIdx.y * 32 + threadIdx.x] = v;
    __syncthreads();
    float total = 0.0f;
    if (threadIdx.y == 0)
        for (int i = 0; i < 8; i++) total += part[i * 32 + threadIdx.x];
    __syncthreads();
    return total;
}

GLOBAL column_sums(const float* x, float* sums, int rows, int columns, int chunk) {
    __shared__ float part[256];
    int c = blockIdx.x * 32 + threadIdx.x, last = min(rows, (int)(blockIdx.y + 1) * chunk);
    float sum = 0.0f;
    if (c < columns)
        for (int r = blockIdx.y * chunk + threadIdx.y; r < last; r += 8) sum += x[(size_t)r * columns + c];
    sum = column_sum(sum, part);
    if (c < columns && threadIdx.y == 0) sums[(size_t)blockIdx.y * columns + c] = sum;
}

// The gradients of a layer normalisation's weights and bias: sums [chunks, 2 width].
GLOBAL layer_norm_weight_sums(const float* x, const float* moments, const float* g, float* sums, int rows,
                              int width, int chunk) {
    __shared__ float part[256];
    int c = blockIdx.x * 32 + threadIdx.x, last = min(rows, (int)(blockIdx.y + 1) * chunk);
    float scaled = 0.0f, plain = 0.0f;
    if (c < width)
        for (int r = blockIdx.y * chunk + threadIdx.y; r < last; r += 8) {
            size_t i = (size_t)r * width + c;
            scaled += g[i] * (x[i] - moments[2 * r]) * moments[2 * r + 1];
            plain += g[i];
        }
    scaled = column_sum(scaled, part);
    plain = column_sum(plain, part);
    if (c < width && threadIdx.y == 0) {
        sums[(size_t)blockIdx.y * 2 * width + c] = scaled;
        sums[(size_t)blockIdx.y * 2 * width + width + c] = plain;
    }
}

// A warp adds up the pixels of a plane.
GLOBAL plane_sums(const float* x, float* sums, int planes, int pixels) {
    int plane = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (plane >= planes) return;
    float sum = 0.0f;
    for (int p = threadIdx.x % 32; p < pixels; p += 32) sum += x[(size_t)plane * pixels + p];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[plane] = sum;
}

// ---- pointwise ----

// y [.., C, pixels] += b [C], in place.
GLOBAL add_bias(float* y, const float* b, unsigned count, unsigned channels, unsigned pixels) {
    MANY y[i] += b[i / pixels % channels];
}

// y = x [planes, pixels] + t [planes].
GLOBAL add_per_plane(const float* x, const float* t, float* y, unsigned count, unsigned pixels) {
    MANY y[i] = x[i] + t[i / pixels];
}

// Curves: 0 SiLU, 1 GELU, 2 quick GELU.
GLOBAL activation(const float* x, float* y, unsigned count, int curve) {
    MANY {
        float v = x[i];
        y[i] = curve == 0 ? v * sigmoid(v) : curve == 1 ? v * normal_cdf(v) : v * sigmoid(1.702f * v);
    }
}

GLOBAL activation_slope(const float* x, const float* g, float* gx, unsigned count, int curve) {
    MANY {
        float v = x[i];
        float slope = curve == 0 ? silu_slope(v)
                      : curve == 1 ? normal_cdf(v) + v * normal_pdf(v)
                                   : silu_slope(1.702f * v);
        gx[i] = g[i] * slope;
    }
}

// x [rows, 2 width] = (hidden, gate): y = hidden gelu(gate).
GLOBAL geglu(const float* x, float* y, unsigned count, unsigned width) {
    MANY {
        unsigned at = i / width * 2 * width + i % width;
        float gate = x[at + width];
        y[i] = x[at] * (gate * normal_cdf(gate));
    }
}

GLOBAL geglu_slope(const float* x, const float* g, float* gx, unsigned count, unsigned width) {
    MANY {
        unsigned at = i / width * 2 * width + i % width;
        float hidden = x[at], gate = x[at + width], phi = normal_cdf(gate);
        gx[at] = g[i] * (gate * phi);
        gx[at + width] = g[i] * hidden * (phi + gate * normal_pdf(gate));
    }
}

// ---- random numbers: Philox4x32-10, as src/rng.rs ----

GLOBAL normals(float* y, unsigned count, unsigned low, unsigned high, unsigned step, unsigned stream) {
    MANY {
        unsigned c0 = i, c1 = 0, c2 = step, c3 = stream, k0 = low, k1 = high;
        for (int round = 0; round < 10; round++) {
            if (round > 0) {
                k0 += 0x9E3779B9u;
                k1 += 0xBB67AE85u;
            }
            unsigned h0 = __umulhi(c0, 0xD2511F53u), l0 = c0 * 0xD2511F53u;
            unsigned h1 = __umulhi(c2, 0xCD9E8D57u), l1 = c2 * 0xCD9E8D57u;
            c0 = h1 ^ c1 ^ k0;
            c1 = l1;
            c2 = h0 ^ c3 ^ k1;
            c3 = l0;
        }
        float u = ((c0 >> 8) + 1.0f) * (1.0f / 16777216.0f), v = (c1 >> 8) * (1.0f / 16777216.0f);
        y[i] = sqrtf(-2.0f * logf(u)) * cosf(6.28318530717958648f * v);
    }
}

// ---- moved values ----

// count: elements of the result [planes, 2 height, 2 width].
GLOBAL upsample(const float* x, float* y, unsigned count, unsigned width) {
    MANY {
        unsigned row = i / (2 * width);
        y[i] = x[row / 2 * width + i % (2 * width) / 2];
    }
}

// count: elements of gx [planes, height, width].
GLOBAL upsample_slope(const float* g, float* gx, unsigned count, unsigned width) {
    MANY {
        const float* from = g + i / width * 4 * width + i % width * 2;
        gx[i] = from[0] + from[1] + from[2 * width] + from[2 * width + 1];
    }
}

// y [planes, columns, rows] is x [planes, rows, columns] turned about, by tiles of 32 x 32 in blocks of 32 x 8.
GLOBAL turn(const float* x, float* y, int rows, int columns) {
    __shared__ float tile[32 * 33];
    size_t plane = (size_t)blockIdx.z * rows * columns;
    int c = blockIdx.x * 32 + threadIdx.x, r = blockIdx.y * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += 8)
        if (r + j < rows && c < columns)
            tile[(threadIdx.y + j) * 33 + threadIdx.x] = x[plane + (size_t)(r + j) * columns + c];
    __syncthreads();
    int to = blockIdx.y * 32 + threadIdx.x, from = blockIdx.x * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += 8)
        if (from + j < columns && to < rows)
            y[plane + (size_t)(from + j) * rows + to] = tile[threadIdx.x * 33 + threadIdx.y + j];
}

// The rows of g [n, width] that came from each row of a table [rows, width]. A block of 8 x 128 threads has a row of
// the table: eight parts of the ids side by side (one row of the table, padding, has most of them), each in order.
GLOBAL embedding_slope(const unsigned* ids, const float* g, float* table, int n, int width) {
    __shared__ float part[1024];
    int group = threadIdx.x / 128, lane = threadIdx.x % 128, chunk = (n + 7) / 8;
    for (int first = 0; first < width; first += 128) {
        int c = first + lane;
        float sum = 0.0f;
        if (c < width)
            for (int i = group * chunk; i < min(n, (group + 1) * chunk); i++)
                if (ids[i] == blockIdx.x) sum += g[(size_t)i * width + c];
        part[threadIdx.x] = sum;
        __syncthreads();
        if (group == 0 && c < width) {
            float total = 0.0f;
            for (int j = 0; j < 8; j++) total += part[128 * j + lane];
            table[(size_t)blockIdx.x * width + c] = total;
        }
        __syncthreads();
    }
}

// ---- attention of one head in one block, all of it in shared memory ----

// C[r, c] = sum_k A[r, k] B[k, c] given to `store(r, c, value)`, four rows a thread.
template <typename Store>
__device__ __forceinline__ void product(int rows, int columns, int depth, const float* a, int row, int a_step,
                                        const float* b, int b_step, int column, Store store) {
    for (int i = threadIdx.x; i < (rows + 3) / 4 * columns; i += blockDim.x) {
        int c = i % columns, r = i / columns * 4;
        const float *a0 = a + r * row, *a1 = a + min(r + 1, rows - 1) * row, *a2 = a + min(r + 2, rows - 1) * row,
                    *a3 = a + min(r + 3, rows - 1) * row;
        float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
        for (int k = 0; k < depth; k++) {
            float v = b[k * b_step + c * column];
            s0 += a0[k * a_step] * v;
            s1 += a1[k * a_step] * v;
            s2 += a2[k * a_step] * v;
            s3 += a3[k * a_step] * v;
        }
        store(r, c, s0);
        if (r + 1 < rows) store(r + 1, c, s1);
        if (r + 2 < rows) store(r + 2, c, s2);
        if (r + 3 < rows) store(r + 3, c, s3);
    }
}

// Rows of one head [rows, depth] among [rows, heads depth], to or from a place with one more column.
__device__ __forceinline__ void load_head(const float* x, float* to, int rows, int depth, int width) {
    for (int i = threadIdx.x; i < rows * depth; i += blockDim.x)
        to[i / depth * (depth + 1) + i % depth] = x[(size_t)(i / depth) * width + i % depth];
}

// s = softmax(scale q k^T), rows of m + 1 places.
__device__ void probabilities(const float* q, const float* k, float* s, int n, int m, int depth, float scale,
                              int causal) {
    product(n, m, depth, q, depth + 1, 1, k, 1, depth + 1, [=](int r, int c, float v) {
        s[r * (m + 1) + c] = causal && c > r ? -3.0e38f : v * scale;
    });
    __syncthreads();
    for (int r = threadIdx.x / 32; r < n; r += blockDim.x / 32) {
        float* row = s + r * (m + 1);
        float most = -3.4e38f, sum = 0.0f;
        for (int c = threadIdx.x % 32; c < m; c += 32) most = fmaxf(most, row[c]);
        most = warp_max(most);
        for (int c = threadIdx.x % 32; c < m; c += 32) {
            row[c] = expf(row[c] - most);
            sum += row[c];
        }
        sum = 1.0f / warp_sum(sum);
        for (int c = threadIdx.x % 32; c < m; c += 32) row[c] *= sum;
    }
    __syncthreads();
}

GLOBAL attention(const float* q, const float* k, const float* v, float* o, int n, int m, int heads, int depth,
                 float scale, int causal) {
    extern __shared__ float shared[];
    int width = heads * depth;
    size_t image = blockIdx.x / heads, at = (size_t)(blockIdx.x % heads) * depth;
    size_t queries = image * n * width + at, keys = image * m * width + at;
    float *qs = shared, *ks = qs + n * (depth + 1), *vs = ks + m * (depth + 1), *s = vs + m * (depth + 1);
    load_head(q + queries, qs, n, depth, width);
    load_head(k + keys, ks, m, depth, width);
    load_head(v + keys, vs, m, depth, width);
    __syncthreads();
    probabilities(qs, ks, s, n, m, depth, scale, causal);
    float* to = o + queries;
    product(n, depth, m, s, m + 1, 1, vs, depth + 1, 1,
            [=](int r, int c, float value) { to[(size_t)r * width + c] = value; });
}

// dV = P^T dO, dS = P (dO V^T - dO . O), dQ = scale dS K, dK = scale dS^T Q.
GLOBAL attention_slope(const float* q, const float* k, const float* v, const float* o, const float* g, float* gq,
                       float* gk, float* gv, int n, int m, int heads, int depth, float scale, int causal) {
    extern __shared__ float shared[];
    int width = heads * depth, pitch = depth + 1;
    size_t image = blockIdx.x / heads, at = (size_t)(blockIdx.x % heads) * depth;
    size_t queries = image * n * width + at, keys = image * m * width + at;
    float *qs = shared, *ks = qs + n * pitch, *vs = ks + m * pitch, *gs = vs + m * pitch, *s = gs + n * pitch,
          *inner = s + n * (m + 1);
    load_head(q + queries, qs, n, depth, width);
    load_head(k + keys, ks, m, depth, width);
    load_head(v + keys, vs, m, depth, width);
    load_head(g + queries, gs, n, depth, width);
    __syncthreads();
    probabilities(qs, ks, s, n, m, depth, scale, causal);
    for (int r = threadIdx.x / 32; r < n; r += blockDim.x / 32) {
        float sum = 0.0f;
        for (int c = threadIdx.x % 32; c < depth; c += 32)
            sum += gs[r * pitch + c] * o[queries + (size_t)r * width + c];
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) inner[r] = sum;
    }
    float *to_q = gq + queries, *to_k = gk + keys, *to_v = gv + keys;
    product(m, depth, n, s, 1, m + 1, gs, pitch, 1,
            [=](int r, int c, float value) { to_v[(size_t)r * width + c] = value; });
    __syncthreads();
    product(n, m, depth, gs, pitch, 1, vs, 1, pitch, [=](int r, int c, float value) {
        s[r * (m + 1) + c] *= (value - inner[r]) * scale;
    });
    __syncthreads();
    product(n, depth, m, s, m + 1, 1, ks, pitch, 1,
            [=](int r, int c, float value) { to_q[(size_t)r * width + c] = value; });
    product(m, depth, n, s, 1, m + 1, qs, pitch, 1,
            [=](int r, int c, float value) { to_k[(size_t)r * width + c] = value; });
}
