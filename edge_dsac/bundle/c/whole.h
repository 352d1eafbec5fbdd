// Whole-number kernels. Every operation here is exact or one of three that say how they round (shift, times Q15, saturation),
// so every processor gives the same bits; what differs below is only how a sum is put together.
//
// Weights lie as [outputs / 32][inputs / g][32][g]: g inputs of 32 units side by side, so that g inputs are broadcast once and a
// unit's sum stays in its own lane. g = 2 for int16 inputs, 4 for 7-bit ones. Inputs are padded with zero weights.
#if defined(__AVX2__) || defined(__SSSE3__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define BLOCK 32

static inline int32_t four_bytes(const void *p) {
  int32_t value;
  __builtin_memcpy(&value, p, 4);
  return value;
}

// sum[32] += weights[inputs][32] * q, int16 by int16.
static inline void add_int16(int32_t *restrict sum, const int16_t *restrict w, const int16_t *restrict q, int inputs) {
#if defined(__AVX2__)
  __m256i s[4];
  for (int b = 0; b < 4; b++) s[b] = _mm256_loadu_si256((const __m256i *)(sum + 8 * b));
  for (int k = 0; k < inputs; k += 2, w += 2 * BLOCK) {
    __m256i pair = _mm256_set1_epi32(four_bytes(q + k));
    for (int b = 0; b < 4; b++) s[b] = _mm256_add_epi32(s[b], _mm256_madd_epi16(_mm256_load_si256((const __m256i *)w + b), pair));
  }
  for (int b = 0; b < 4; b++) _mm256_storeu_si256((__m256i *)(sum + 8 * b), s[b]);
#elif defined(__SSSE3__)
  __m128i s[8];
  for (int b = 0; b < 8; b++) s[b] = _mm_loadu_si128((const __m128i *)(sum + 4 * b));
  for (int k = 0; k < inputs; k += 2, w += 2 * BLOCK) {
    __m128i pair = _mm_set1_epi32(four_bytes(q + k));
    for (int b = 0; b < 8; b++) s[b] = _mm_add_epi32(s[b], _mm_madd_epi16(_mm_load_si128((const __m128i *)w + b), pair));
  }
  for (int b = 0; b < 8; b++) _mm_storeu_si128((__m128i *)(sum + 4 * b), s[b]);
#elif defined(__ARM_NEON)
  int32x4_t s[8];
  for (int b = 0; b < 8; b++) s[b] = vld1q_s32(sum + 4 * b);
  for (int k = 0; k < inputs; k += 2, w += 2 * BLOCK)
    for (int b = 0; b < 8; b++) {
      int16x4x2_t both = vld2_s16(w + 8 * b);
      s[b] = vmlal_n_s16(vmlal_n_s16(s[b], both.val[0], q[k]), both.val[1], q[k + 1]);
    }
  for (int b = 0; b < 8; b++) vst1q_s32(sum + 4 * b, s[b]);
#else
  for (int k = 0; k < inputs; k += 2, w += 2 * BLOCK)
    for (int o = 0; o < BLOCK; o++) sum[o] += (int32_t)w[2 * o] * q[k] + (int32_t)w[2 * o + 1] * q[k + 1];
#endif
}

// sum[32] += weights[inputs][32] * q, int8 by 0..127. Four products always fit int16: the compiler of the actor saw to it.
// On AVX2 (Zen, weights in L2) it takes about 1.04 of the time of reading the weights, at its quickest. Tried there and not kept, by the
// change of a whole action's median: prefetching 1 to 4 kB ahead (-4 to +7 %, unsure), the next layer's weights during the nonlinearity
// (0 to +10 %), two blocks at a time (-1 to -5 %, as much as two copies of one file differ), widening by shift and addition (+4 to +19 %),
// each block's nonlinearity right behind its sums (+1 to +13 %).
static inline void add_int8(int32_t *restrict sum, const int8_t *restrict w, const uint8_t *restrict q, int inputs) {
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
  __m512i s[4];
  for (int b = 0; b < 2; b++) s[b] = _mm512_loadu_si512(sum + 16 * b), s[b + 2] = _mm512_setzero_si512();
  for (int k = 0; k < inputs; k += 8, w += 8 * BLOCK) {
    __m512i first = _mm512_set1_epi32(four_bytes(q + k)), second = _mm512_set1_epi32(four_bytes(q + k + 4));
    for (int b = 0; b < 2; b++) {
      s[b] = _mm512_dpbusd_epi32(s[b], first, _mm512_load_si512((const __m512i *)w + b));
      s[b + 2] = _mm512_dpbusd_epi32(s[b + 2], second, _mm512_load_si512((const __m512i *)w + 2 + b));
    }
  }
  for (int b = 0; b < 2; b++) _mm512_storeu_si512(sum + 16 * b, _mm512_add_epi32(s[b], s[b + 2]));
#elif defined(__AVX2__)
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i s[4];
  for (int b = 0; b < 4; b++) s[b] = _mm256_loadu_si256((const __m256i *)(sum + 8 * b));
  for (int k = 0; k < inputs; k += 8, w += 8 * BLOCK) {
    __m256i first = _mm256_set1_epi32(four_bytes(q + k)), second = _mm256_set1_epi32(four_bytes(q + k + 4));
    for (int b = 0; b < 4; b++) {
      __m256i low = _mm256_maddubs_epi16(first, _mm256_load_si256((const __m256i *)w + b));
      __m256i high = _mm256_maddubs_epi16(second, _mm256_load_si256((const __m256i *)w + 4 + b));
      s[b] = _mm256_add_epi32(s[b], _mm256_madd_epi16(_mm256_add_epi16(low, high), ones));
    }
  }
  for (int b = 0; b < 4; b++) _mm256_storeu_si256((__m256i *)(sum + 8 * b), s[b]);
#elif defined(__SSSE3__)
  const __m128i ones = _mm_set1_epi16(1);
  __m128i s[8];
  for (int b = 0; b < 8; b++) s[b] = _mm_loadu_si128((const __m128i *)(sum + 4 * b));
  for (int k = 0; k < inputs; k += 8, w += 8 * BLOCK) {
    __m128i first = _mm_set1_epi32(four_bytes(q + k)), second = _mm_set1_epi32(four_bytes(q + k + 4));
    for (int b = 0; b < 8; b++) {
      __m128i low = _mm_maddubs_epi16(first, _mm_load_si128((const __m128i *)w + b));
      __m128i high = _mm_maddubs_epi16(second, _mm_load_si128((const __m128i *)w + 8 + b));
      s[b] = _mm_add_epi32(s[b], _mm_madd_epi16(_mm_add_epi16(low, high), ones));
    }
  }
  for (int b = 0; b < 8; b++) _mm_storeu_si128((__m128i *)(sum + 4 * b), s[b]);
#elif defined(__ARM_NEON)
  int32x4_t s[8];
  for (int b = 0; b < 8; b++) s[b] = vld1q_s32(sum + 4 * b);
  for (int k = 0; k < inputs; k += 4, w += 4 * BLOCK) {
    int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(four_bytes(q + k)));
    for (int b = 0; b < 8; b++) {
      int8x16_t wide = vld1q_s8(w + 16 * b);
#if defined(__ARM_FEATURE_DOTPROD)
      s[b] = vdotq_s32(s[b], wide, four);
#else
      int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(wide), vget_low_s8(four)));
      int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(wide), vget_high_s8(four)));
      s[b] = vaddq_s32(s[b], vpaddq_s32(low, high));
#endif
    }
  }
  for (int b = 0; b < 8; b++) vst1q_s32(sum + 4 * b, s[b]);
#else
  for (int k = 0; k < inputs; k += 4, w += 4 * BLOCK)
    for (int o = 0; o < BLOCK; o++)
      sum[o] += w[4 * o] * q[k] + w[4 * o + 1] * q[k + 1] + w[4 * o + 2] * q[k + 2] + w[4 * o + 3] * q[k + 3];
#endif
}

// One unit of the last layer: int16 weights in a row.
static inline int32_t dot_int16(const int16_t *restrict w, const int16_t *restrict q, int inputs) {
  int32_t sum = 0;
  for (int k = 0; k < inputs; k++) sum += (int32_t)w[k] * q[k];
  return sum;
}

// ---- from a layer's sums to the next layer's inputs, many units at a time where the processor can, one where it cannot

#if defined(__AVX2__)
#define LANES 16
#elif defined(__SSSE3__) || defined(__ARM_NEON)
#define LANES 8
#else
#define LANES 1
#endif
#if LANES > 1
typedef int16_t lanes __attribute__((vector_size(2 * LANES)));
typedef uint16_t bits16 __attribute__((vector_size(2 * LANES)));
#define EVERY(value) ((lanes){0} + (int16_t)(value))
#else
typedef int16_t lanes;
typedef uint16_t bits16;
#define EVERY(value) ((int16_t)(value))
#endif
#define LEAST(a, b) __builtin_elementwise_min(a, b)
#define MOST(a, b) __builtin_elementwise_max(a, b)

static inline int16_t saturated(int32_t value) { return (int16_t)(value > 32767 ? 32767 : value < -32768 ? -32768 : value); }

// int16 times a fraction in Q15, rounded half up.
static inline lanes times_q15(lanes value, lanes fraction) {
#if LANES == 16
  return (lanes)_mm256_mulhrs_epi16((__m256i)value, (__m256i)fraction);
#elif defined(__SSSE3__)
  return (lanes)_mm_mulhrs_epi16((__m128i)value, (__m128i)fraction);
#elif defined(__ARM_NEON)
  return (lanes)vqrdmulhq_s16((int16x8_t)value, (int16x8_t)fraction);
#else
  return (lanes)(((int32_t)value * fraction + 0x4000) >> 15);
#endif
}

// gelu(x) = max(x, 0) - bump(|x|); twice the bump is a polynomial of |x| / 2 - 1 up to |x| = 4.
static inline lanes gelu_int16(lanes x, int bits) {
  lanes size = MOST(x, (lanes)-MOST(x, EVERY(-32767)));
  lanes s = (lanes)((bits16)(LEAST(size, EVERY((1 << (17 - bits)) - 1)) << (bits - 1)) ^ (bits16)EVERY(-32768));
  lanes total = EVERY(gelu_bump[0]);
  for (int i = 1; i < 9; i++) total = (lanes)(times_q15(total, s) + EVERY(gelu_bump[i]));
  return (lanes)(MOST(x, EVERY(0)) - (lanes)((lanes)(total + EVERY(1 << bits)) >> (bits + 1)));
}

// elu(x) = max(x, 0) - curve(max(-x, 0)); the curve is a polynomial of t / 4 - 1 up to t = 8, and its last product a rounded shift.
static inline lanes elu_int16(lanes x, int bits) {
  lanes t = (lanes)-MOST(LEAST(x, EVERY(0)), EVERY(-32767));
  lanes s = (lanes)((bits16)(LEAST(t, EVERY((1 << (18 - bits)) - 1)) << (bits - 2)) ^ (bits16)EVERY(-32768));
  lanes total = EVERY(elu_curve[0]);
  for (int i = 1; i < 10; i++) total = (lanes)(times_q15(total, s) + EVERY(elu_curve[i]));
  return (lanes)(MOST(x, EVERY(0)) - times_q15(total, EVERY(1 << (15 - bits))));
}

static inline lanes relu_int16(lanes x, int bits) {
  (void)bits;
  return MOST(x, EVERY(0));
}

// By a table of 512 steps over 0..8, with interpolation.
static inline int16_t tanh_int16(int16_t x, int bits) {
  int32_t t = (x == -32768 ? 32767 : x < 0 ? -x : x) << (bits - 3);
  if (t > 32767) t = 32767;
  int32_t low = tanh_table[t >> 6], high = tanh_table[(t >> 6) + 1];
  int32_t y = low + (((high - low) * (t & 63) + 32) >> 6);
  return (int16_t)(x < 0 ? -y : x > 0 ? y : 0);
}

static inline int16_t clip_int16(int16_t x, int bits) {
  int32_t y = (int32_t)x * (1 << bits);
  return (int16_t)(y > 32767 ? 32767 : y < -32767 ? -32767 : y);
}

static inline lanes tanh_lanes(lanes x, int bits) {
#if LANES > 1
  int16_t each[LANES];
  __builtin_memcpy(each, &x, sizeof each);
  for (int i = 0; i < LANES; i++) each[i] = tanh_int16(each[i], bits);
  __builtin_memcpy(&x, each, sizeof each);
  return x;
#else
  return tanh_int16(x, bits);
#endif
}

// All units of a layer at once, so that the chains of several overlap: sums (the rounding half of the shift is in their bias already)
// -> inputs of the next layer. `y` is room to work in.
#define TO_HIDDEN(name, kind, nonlinear)                                                                                            \
  static inline void name(kind *restrict q, const int32_t *restrict sum, const uint8_t *restrict shift,                              \
                          const int16_t *restrict multiplier, const int16_t *restrict gain, const int16_t *restrict zero, int bits,  \
                          int units, int16_t *restrict y) {                                                                          \
    for (int i = 0; i < units; i++) y[i] = saturated(sum[i] >> shift[i]);                                                            \
    for (int i = 0; i < units; i += LANES) {                                                                                         \
      lanes x = times_q15(*(const lanes *)(y + i), *(const lanes *)(multiplier + i));                                                \
      lanes next = (lanes)(times_q15(nonlinear(x, bits), *(const lanes *)(gain + i)) + *(const lanes *)(zero + i));                  \
      *(lanes *)(y + i) = LEAST(MOST(next, EVERY(0)), EVERY(127));                                                                   \
    }                                                                                                                                \
    for (int i = 0; i < units; i++) q[i] = (kind)y[i];                                                                               \
  }

// The same without a scale of each unit's own: what the form int16 has.
#define TO_WIDE(name, nonlinear)                                                                                                    \
  static inline void name(int16_t *restrict q, const int32_t *restrict sum, const uint8_t *restrict shift,                           \
                          const int16_t *restrict multiplier, int bits, int units) {                                                 \
    for (int i = 0; i < units; i++) q[i] = saturated(sum[i] >> shift[i]);                                                            \
    for (int i = 0; i < units; i += LANES)                                                                                           \
      *(lanes *)(q + i) = nonlinear(times_q15(*(const lanes *)(q + i), *(const lanes *)(multiplier + i)), bits);                     \
  }

static inline int16_t before_end(int32_t sum, int shift, int16_t multiplier) {
  return (int16_t)(((int32_t)saturated(sum >> shift) * multiplier + 0x4000) >> 15);
}

// Rounded half away from zero; NaN is 0, beyond the clip is the clip.
static inline int16_t whole_of(float value) {
  if (!(value == value)) return 0;
  if (value > 32767.0f) return 32767;
  if (value < -32767.0f) return -32767;
  return (int16_t)(int32_t)(value + (value < 0.0f ? -0.5f : 0.5f));
}
