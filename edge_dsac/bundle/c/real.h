// float32 kernels: no libm, no heap. Weights lie as [outputs / 32][inputs][32]: an input is broadcast once, a unit's sum stays in its
// own lane.
#define ROW 16
typedef float row __attribute__((vector_size(4 * ROW), aligned(4)));

// sum[32] += weights[inputs][32] * x. Two sums a lane, taken in turns: one would wait for its own addition.
static inline void add_float(float *restrict sum, const float *restrict w, const float *restrict x, int inputs) {
  row s[4] = {*(const row *)sum, *(const row *)(sum + ROW), {0}, {0}};
  int k = 0;
  for (; k + 1 < inputs; k += 2, w += 4 * ROW) {
    s[0] += *(const row *)w * x[k];
    s[1] += *(const row *)(w + ROW) * x[k];
    s[2] += *(const row *)(w + 2 * ROW) * x[k + 1];
    s[3] += *(const row *)(w + 3 * ROW) * x[k + 1];
  }
  if (k < inputs) s[0] += *(const row *)w * x[k], s[1] += *(const row *)(w + ROW) * x[k];
  *(row *)sum = s[0] + s[2], *(row *)(sum + ROW) = s[1] + s[3];
}

// One unit of the last layer: weights in a row.
static inline float dot_float(const float *restrict w, const float *restrict x, int inputs) {
  row s = {0};
  int k = 0;
  for (; k + ROW <= inputs; k += ROW) s += *(const row *)(w + k) * *(const row *)(x + k);
  float total = 0.0f;
  for (int i = 0; i < ROW; i++) total += s[i];
  for (; k < inputs; k++) total += w[k] * x[k];
  return total;
}

// 0.5 x (1 + erf(x / sqrt 2)), erf by a rational fit within 1e-7.
static inline float gelu_float(float x) {
  float q = x * GELU_REACH_INVERSE;
  q = q > 1.0f ? 1.0f : q < -1.0f ? -1.0f : q;
  float u = q * q;
  float n = ((((ERF_N5 * u + ERF_N4) * u + ERF_N3) * u + ERF_N2) * u + ERF_N1) * u + ERF_N0;
  float d = ((((ERF_D5 * u + ERF_D4) * u + ERF_D3) * u + ERF_D2) * u + ERF_D1) * u + ERF_D0;
  return 0.5f * x * (1.0f + q * n / d);
}

static inline float relu_float(float x) { return x > 0.0f ? x : 0.0f; }

// exp(x) - 1 below 0, within 1e-6, with no branch and no conversion to int, so that it is done for many at once and NaN comes through.
// exp(x) = 2^whole 2^part: 1.5 * 2^23 added and taken away again rounds to a whole number and leaves it in the lowest bits.
static inline float elu_float(float x) {
  const float round = 12582912.0f;
  float t = x > 0.0f ? 0.0f : x < -17.0f ? -17.0f : x;  // beyond, exp(x) is below half a step of 1
  float exponent = t * 1.442695041f;  // 1 / ln 2
  union { float value; uint32_t bits; } whole = {exponent + round};
  float p = (exponent - (whole.value - round)) * 0.6931471806f;
  float e = 1.0f + p * (1.0f + p * (0.5f + p * (1.0f / 6 + p * (1.0f / 24 + p * (1.0f / 120 + p * (1.0f / 720))))));
  union { uint32_t bits; float value; } scale = {(whole.bits << 23) + (127u << 23)};
  return x > 0.0f ? x : e * scale.value - 1.0f;
}

static inline float clip_float(float x) { return x > 1.0f ? 1.0f : x < -1.0f ? -1.0f : x; }

// (1 - e) / (1 + e) with e = exp(-2 |x|) = 2^-whole 2^-part; 2^-part by its series, within 1e-7.
static inline float tanh_float(float x) {
  float t = x < 0.0f ? -x : x;
  if (!(t < 9.0f)) return x < 0.0f ? -1.0f : x > 0.0f ? 1.0f : x;
  if (t < 0.05f) return x * (1.0f - x * x * (1.0f / 3.0f - x * x * (2.0f / 15.0f)));
  float exponent = t * 2.885390082f;  // 2 / ln 2
  int32_t whole = (int32_t)exponent;
  float p = (exponent - (float)whole - 0.5f) * -0.6931471806f;
  float e = 1.0f + p * (1.0f + p * (0.5f + p * (1.0f / 6 + p * (1.0f / 24 + p * (1.0f / 120 + p * (1.0f / 720))))));
  union { uint32_t bits; float value; } scale = {(uint32_t)(127 - whole) << 23};
  e *= 0.70710678f * scale.value;
  float y = (1.0f - e) / (1.0f + e);
  return x < 0.0f ? -y : y;
}

// Any network of this nonlinearity and this end, so that a robot whose policy was tuned on it needs no compiler: of each layer the bias,
// then the weights. `sizes`: observations, units of each layer, actions. `room`: for all hidden layers, each a multiple of 32 wide.
struct network {
  const float *weights;
  const int32_t *sizes;
  float *room;
  int32_t layers;
};

EXPORT void network_float32(const struct network *net, const float *obs, float *action) {
  const float *w = net->weights, *x = obs;
  float *y = net->room;
  int inputs = net->sizes[0];
  for (int layer = 1; layer < net->layers; layer++) {
    int units = (net->sizes[layer] + 31) / 32 * 32;
    for (int i = 0; i < units; i++) y[i] = w[i];
    w += units;
    for (int i = 0; i < units; i += 32, w += 32 * inputs) add_float(y + i, w, x, inputs);
    for (int i = 0; i < units; i++) y[i] = NONLINEAR_FLOAT(y[i]);
    x = y, y += units, inputs = units;
  }
  int actions = net->sizes[net->layers];
  for (int i = 0; i < actions; i++) action[i] = END_FLOAT(w[i] + dot_float(w + actions + i * inputs, x, inputs));
}
