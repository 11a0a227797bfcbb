// A linear layer on 8-bit integers whose weight is held without its zeros, for AVX-512 with VNNI and VBMI2.
//
// The weight is cut into tiles of 16 outputs by 4 inputs, which fill a register of 64 bytes. A tile is held
// as 64 bits that say where it is not zero, and the integers that stand there. One instruction puts them in
// their places, and one more multiplies the tile with 4 inputs of one row. So memory is read for the nonzeros
// alone, which is what limits a layer with few rows of inputs; each tile serves up to 8 rows.

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t kOutputs = 16, kInputs = 4, kRows = 8;
constexpr int64_t kAhead = 2048;  // bytes of a weight that are on their way before they are needed
constexpr float kLow = -128.0f, kHigh = 127.0f;

// Inputs in 8 bits, unsigned as the processor wants them: 128 above the integers that they stand for. Up to
// 8 rows lie together, 4 inputs of one beside 4 inputs of the next, as they are multiplied.
struct Inputs {
  std::vector<uint8_t> codes;
  std::vector<float> scale, zero;
};

struct Weight {
  const uint64_t* masks;    // [blocks of outputs][steps]
  const int64_t* starts;    // [blocks of outputs]: where the integers of each begin
  const int8_t* integers;   // with 64 bytes behind the last, which may be read
  const float* scale;       // [outputs], or one for all
  int64_t scale_step;       // 1, or 0 for one for all
  const float* sums;        // [outputs]: of the integers of each row
  const float* bias;        // [outputs] or null
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

// Rounds half to even before the zero point is added; 4 codes of the row lie in every `stride` bytes.
void round_row(const float* row, int64_t length, float scale, float zero, uint8_t* codes, int64_t stride) {
  alignas(16) uint8_t some[16];
  const __m512 step = _mm512_set1_ps(scale), shift = _mm512_set1_ps(zero);
  for (int64_t at = 0; at < length; at += 16) {
    const __mmask16 here = first(length - at);
    __m512 values = _mm512_div_ps(_mm512_maskz_loadu_ps(here, row + at), step);
    values = _mm512_add_ps(_mm512_roundscale_ps(values, _MM_FROUND_TO_NEAREST_INT), shift);
    values = _mm512_min_ps(_mm512_max_ps(values, _mm512_set1_ps(kLow)), _mm512_set1_ps(kHigh));
    const __m512i integers = _mm512_cvtps_epi32(_mm512_sub_ps(values, _mm512_set1_ps(kLow)));
    _mm_store_si128(reinterpret_cast<__m128i*>(some), _mm512_cvtepi32_epi8(integers));
    for (int64_t next = 0; next < 16 && at + next < length; next += kInputs)
      std::memcpy(codes + (at + next) / kInputs * stride, some + next, kInputs);
  }
}

__m512i four_inputs(const uint8_t* at) {
  int32_t word;
  std::memcpy(&word, at, sizeof word);
  return _mm512_set1_epi32(word);
}

int64_t together(int64_t left) { return left < kRows ? left : kRows; }

// What becomes of the sums of 16 outputs: real numbers, without what the zero point of the inputs added.
void finish(__m512i sums, const Weight& weight, int64_t output, int64_t outputs, float scale, float zero,
            float* to) {
  const __mmask16 here = first(outputs - output);
  const __m512 rows = _mm512_maskz_loadu_ps(here, weight.sums + output);
  const __m512i shift = _mm512_slli_epi32(_mm512_cvtps_epi32(rows), 7);
  __m512 real = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, shift));
  real = _mm512_sub_ps(real, _mm512_mul_ps(_mm512_set1_ps(zero), rows));
  const __m512 steps = weight.scale_step ? _mm512_maskz_loadu_ps(here, weight.scale + output)
                                         : _mm512_set1_ps(*weight.scale);
  real = _mm512_mul_ps(_mm512_mul_ps(real, _mm512_set1_ps(scale)), steps);
  if (weight.bias) real = _mm512_add_ps(real, _mm512_maskz_loadu_ps(here, weight.bias + output));
  _mm512_mask_storeu_ps(to + output, here, real);
}

// 16 outputs of some rows. Few rows have two sums each, since a sum waits for the one before it.
template <int Rows>
void block(const Inputs& inputs, int64_t row, int64_t width, const Weight& weight, int64_t number,
           int64_t outputs, float* to) {
  __m512i even[Rows], odd[Rows];
  for (int one = 0; one < Rows; ++one) even[one] = odd[one] = _mm512_setzero_si512();
  const uint8_t* codes = inputs.codes.data() + row * width;
  const int64_t steps = width / kInputs;
  const uint64_t* masks = weight.masks + number * steps;
  const int8_t* integers = weight.integers + weight.starts[number];
  auto step = [&](int64_t at, __m512i* sums) {
    const __m512i tile = _mm512_maskz_expand_epi8(masks[at], _mm512_loadu_si512(integers));
    _mm_prefetch(integers + kAhead, _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(masks + at) + kAhead / 2, _MM_HINT_T0);
    integers += _mm_popcnt_u64(masks[at]);
    for (int one = 0; one < Rows; ++one)
      sums[one] = _mm512_dpbusd_epi32(sums[one], four_inputs(codes + kInputs * (at * Rows + one)), tile);
  };
  int64_t at = 0;
  for (; at + 1 < steps; at += 2) {
    step(at, even);
    step(at + 1, Rows > 3 ? even : odd);
  }
  if (at < steps) step(at, even);
  for (int one = 0; one < Rows; ++one)
    finish(_mm512_add_epi32(even[one], odd[one]), weight, number * kOutputs, outputs,
           inputs.scale[row + one], inputs.zero[row + one], to + (row + one) * outputs);
}

using Block = void (*)(const Inputs&, int64_t, int64_t, const Weight&, int64_t, int64_t, float*);
constexpr Block kBlocks[kRows] = {block<1>, block<2>, block<3>, block<4>,
                                  block<5>, block<6>, block<7>, block<8>};

}  // namespace

// values [rows][width] become outputs [rows][outputs]; `range`, a scale and a zero point, is that of all
// inputs, or null where each row has its own.
extern "C" void zero_free_linear(const float* values, int64_t rows, int64_t width, const float* range,
                                 const Weight* weight, int64_t outputs, float* to, int threads) {
  const int64_t padded = (width + kInputs - 1) / kInputs * kInputs;
  Inputs inputs{std::vector<uint8_t>(rows * padded), std::vector<float>(rows), std::vector<float>(rows)};
  const int64_t blocks = (outputs + kOutputs - 1) / kOutputs;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for
    for (int64_t row = 0; row < rows; ++row) {
      float& scale = inputs.scale[row];
      float& zero = inputs.zero[row];
      if (range) {
        scale = range[0];
        zero = range[1];
      } else {
        fit(values + row * width, width, &scale, &zero);
      }
      const int64_t start = row / kRows * kRows;
      const int64_t stride = kInputs * together(rows - start);
      round_row(values + row * width, width, scale, zero,
                inputs.codes.data() + start * padded + (row - start) * kInputs, stride);
    }
#pragma omp for
    for (int64_t number = 0; number < blocks; ++number)
      for (int64_t row = 0; row < rows; row += kRows)
        kBlocks[together(rows - row) - 1](inputs, row, padded, *weight, number, outputs, to);
  }
}
