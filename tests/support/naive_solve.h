// Small dense linear algebra by plain loops in double: references for closed-form fits.
#pragma once

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

namespace puzzle::test {

using Matrix = std::vector<std::vector<double>>;

inline Matrix to_matrix(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().to(at::kCPU, at::kDouble).contiguous();
  const auto rows = static_cast<std::size_t>(flat.size(0));
  const auto columns = static_cast<std::size_t>(flat.size(1));
  Matrix matrix(rows, std::vector<double>(columns));
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < columns; ++j) {
      matrix[i][j] = flat.const_data_ptr<double>()[i * columns + j];
    }
  }
  return matrix;
}

inline at::Tensor to_tensor(const Matrix& matrix) {
  const auto rows = static_cast<std::int64_t>(matrix.size());
  const auto columns = static_cast<std::int64_t>(matrix.front().size());
  at::Tensor tensor = at::empty({rows, columns}, at::kDouble);
  auto* data = tensor.mutable_data_ptr<double>();
  for (const auto& row : matrix) {
    for (const double value : row) {
      *data++ = value;
    }
  }
  return tensor;
}

// X of A·X = B by Gaussian elimination with row pivots.
inline Matrix naive_solve(Matrix a, Matrix b) {
  const std::size_t n = a.size();
  for (std::size_t column = 0; column < n; ++column) {
    std::size_t pivot = column;
    for (std::size_t row = column + 1; row < n; ++row) {
      if (std::abs(a[row][column]) > std::abs(a[pivot][column])) {
        pivot = row;
      }
    }
    std::swap(a[pivot], a[column]);
    std::swap(b[pivot], b[column]);
    for (std::size_t row = 0; row < n; ++row) {
      if (row == column) {
        continue;
      }
      const double factor = a[row][column] / a[column][column];
      for (std::size_t k = column; k < n; ++k) {
        a[row][k] -= factor * a[column][k];
      }
      for (std::size_t k = 0; k < b[row].size(); ++k) {
        b[row][k] -= factor * b[column][k];
      }
    }
  }
  for (std::size_t row = 0; row < n; ++row) {
    for (double& value : b[row]) {
      value /= a[row][row];
    }
  }
  return b;
}

// Σ_t w_t x_t y_tᵀ; `weights` [N].
inline Matrix naive_products(const Matrix& x, const Matrix& y, const std::vector<double>& weights) {
  Matrix sum(x.front().size(), std::vector<double>(y.front().size(), 0.0));
  for (std::size_t t = 0; t < x.size(); ++t) {
    for (std::size_t i = 0; i < sum.size(); ++i) {
      for (std::size_t j = 0; j < sum[i].size(); ++j) {
        sum[i][j] += weights[t] * x[t][i] * y[t][j];
      }
    }
  }
  return sum;
}

inline double add_ridge(Matrix& a, double lambda) {
  double mean = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    mean += a[i][i] / static_cast<double>(a.size());
  }
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i][i] += lambda * mean;
  }
  return lambda * mean;
}

// The ridge fit W [D, F] of y ≈ x·Wᵀ, ridge λ·mean(diag).
inline at::Tensor naive_ridge(const at::Tensor& x_NF, const at::Tensor& y_ND,
                              const std::vector<double>& weights, double lambda) {
  const Matrix x = to_matrix(x_NF);
  const Matrix y = to_matrix(y_ND);
  Matrix a = naive_products(x, x, weights);
  add_ridge(a, lambda);
  return to_tensor(naive_solve(a, naive_products(x, y, weights))).t().contiguous();
}

}  // namespace puzzle::test
