// A linear layer on 8-bit integers whose weight is held without its zeros, for AVX-512 with VNNI and VBMI.
//
// 16 outputs are computed together, in steps. A step has up to 4 weights of each output that are not zero,
// and the place of each in a window of 64 inputs. One instruction picks the 4 inputs of each output out of the
// window, and one more multiplies them with the weights and adds the 4 products to the sum of the output. So
// zeros cost neither memory nor multiplications, but for those that fill up a step: see `zero_free.py`. Up to
// 8 rows of inputs go through a step at once.

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int64_t kOutputs = 16, kRows = 8;
constexpr int64_t kWindow = 64;  // inputs that a step chooses from, and inputs that it multiplies
constexpr int64_t kAhead = 32;   // steps that are on their way from memory before they are needed
constexpr float kLow = -128.0f, kHigh = 127.0f;

// Inputs in 8 bits, unsigned as the processor wants them: 128 above the integers that they stand for. Behind
// each row there is space, since the last windows may reach beyond its end.
struct Inputs {
  int64_t stride;
  std::vector<uint8_t> codes;
  std::vector<float> scale, zero;
};

struct Step {
  uint8_t places[kWindow];  // 4 of each output, in the window
  int8_t integers[kWindow];
};

struct Weight {
  const int64_t* begins;   // [blocks of outputs + 1]: the first step of each, and the number of all
  const int32_t* windows;  // [steps]: the first input of each window
  const Step* steps;
  int64_t outputs;
  const float *scale, *sums, *bias;  // [outputs]; the sums are those of the integers of an output
};

__mmask16 first(int64_t count) { return count >= 16 ? 0xFFFF : __mmask16((1u << count) - 1); }

// The range of a row with zero in it, as scale and zero point; a row with NaN gets NaN.
void fit(const float* row, int64_t length, float* scale, float* zero) {
  __m512 low = _mm512_setzero_ps(), high = low;
  __mmask16 nan = 0;
  for (int64_t at = 0; at < length; at += 16) {
    const __m512 values = _mm512_maskz_loadu_ps(first(length - at), row + at);
    low = _mm512_min_ps(low, values);
    high = _mm512_max_ps(high, values);
    nan |= _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  }
  const float least = _mm512_reduce_min_ps(low);
  const float step = nan ? NAN : (_mm512_reduce_max_ps(high) - least) / (kHigh - kLow);
  *scale = step == 0 ? 1.0f : step;
  *zero = std::nearbyint(kLow - least / *scale);
}

// Rounds half to even before the zero point is added. What lies behind the row's end becomes a code too.
void round_row(const float* row, int64_t length, float scale, float zero, uint8_t* codes) {
  const __m512 step = _mm512_set1_ps(scale), shift = _mm512_set1_ps(zero);
  for (int64_t at = 0; at < length; at += 16) {
    __m512 values = _mm512_div_ps(_mm512_maskz_loadu_ps(first(length - at), row + at), step);
    values = _mm512_add_ps(_mm512_roundscale_ps(values, _MM_FROUND_TO_NEAREST_INT), shift);
    values = _mm512_min_ps(_mm512_max_ps(values, _mm512_set1_ps(kLow)), _mm512_set1_ps(kHigh));
    const __m512i integers = _mm512_cvtps_epi32(_mm512_sub_ps(values, _mm512_set1_ps(kLow)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + at), _mm512_cvtepi32_epi8(integers));
  }
}

// What becomes of the sums of 16 outputs: real numbers, without what the zero point of the inputs added.
void finish(__m512i sums, const Weight& weight, int64_t output, float scale, float zero, float* to) {
  const __mmask16 here = first(weight.outputs - output);
  const __m512 rows = _mm512_maskz_loadu_ps(here, weight.sums + output);
  const __m512i shift = _mm512_slli_epi32(_mm512_cvtps_epi32(rows), 7);
  __m512 real = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, shift));
  real = _mm512_sub_ps(real, _mm512_mul_ps(_mm512_set1_ps(zero), rows));
  real = _mm512_mul_ps(real, _mm512_set1_ps(scale));
  real = _mm512_mul_ps(real, _mm512_maskz_loadu_ps(here, weight.scale + output));
  real = _mm512_add_ps(real, _mm512_maskz_loadu_ps(here, weight.bias + output));
  _mm512_mask_storeu_ps(to + output, here, real);
}

// 16 outputs of some rows.
template <int Rows>
void block(const Inputs& inputs, int64_t row, const Weight& weight, int64_t number, float* to) {
  __m512i sums[Rows];
  for (int one = 0; one < Rows; ++one) sums[one] = _mm512_setzero_si512();
  const uint8_t* codes = inputs.codes.data() + row * inputs.stride;
  for (int64_t at = weight.begins[number]; at < weight.begins[number + 1]; ++at) {
    const Step* step = weight.steps + at;
    const __m512i places = _mm512_loadu_si512(step->places), integers = _mm512_loadu_si512(step->integers);
    _mm_prefetch(step[kAhead].places, _MM_HINT_T0);
    _mm_prefetch(step[kAhead].integers, _MM_HINT_T0);
    const uint8_t* window = codes + weight.windows[at];
    for (int one = 0; one < Rows; ++one, window += inputs.stride) {
      const __m512i chosen = _mm512_permutexvar_epi8(places, _mm512_loadu_si512(window));
      sums[one] = _mm512_dpbusd_epi32(sums[one], chosen, integers);
    }
  }
  for (int one = 0; one < Rows; ++one)
    finish(sums[one], weight, number * kOutputs, inputs.scale[row + one], inputs.zero[row + one],
           to + (row + one) * weight.outputs);
}

using Block = void (*)(const Inputs&, int64_t, const Weight&, int64_t, float*);
constexpr Block kBlocks[kRows] = {block<1>, block<2>, block<3>, block<4>,
                                  block<5>, block<6>, block<7>, block<8>};

}  // namespace

// values [rows][width] become [rows][outputs] in `to`. `range`, a scale and a zero point, is that of all
// inputs, or null where each row has its own; `real` is scales, sums and biases, [3][outputs].
extern "C" void zero_free_linear(const float* values, int64_t rows, int64_t width, const float* range,
                                 const int64_t* begins, const int32_t* windows, const Step* steps,
                                 const float* real, int64_t outputs, float* to, int threads) {
  const Weight weight{begins, windows, steps, outputs, real, real + outputs, real + 2 * outputs};
  const int64_t stride = (width + kWindow - 1) / kWindow * kWindow + kWindow;
  Inputs inputs{stride, std::vector<uint8_t>(rows * stride), std::vector<float>(rows),
                std::vector<float>(rows)};
  const int64_t blocks = (outputs + kOutputs - 1) / kOutputs;
  const bool shared = threads > 1;
  // Few rows are rounded before threads could be called together for that.
#pragma omp parallel for num_threads(threads) if (shared && rows > kRows)
  for (int64_t row = 0; row < rows; ++row) {
    float& scale = inputs.scale[row];
    float& zero = inputs.zero[row];
    if (range) {
      scale = range[0];
      zero = range[1];
    } else {
      fit(values + row * width, width, &scale, &zero);
    }
    round_row(values + row * width, width, scale, zero, inputs.codes.data() + row * stride);
  }
#pragma omp parallel for num_threads(threads) if (shared)
  for (int64_t number = 0; number < blocks; ++number)
    for (int64_t row = 0; row < rows; row += kRows)
      kBlocks[(rows - row < kRows ? rows - row : kRows) - 1](inputs, row, weight, number, to);
}
