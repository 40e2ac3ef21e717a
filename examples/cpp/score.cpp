// Scores rows of token ids with an export of pair_pkg: a traced model.pt (format torchscript), or a compiled
// model_aoti.pt2 (formats aoti and int8). libtorch cannot run the model.pt2 of the format exported, a program for Python
// and compilers: aoti is that program, compiled.
//
//   python -m pair_pkg export --load EXPORT --ids pairs.csv --output rows.tsv
//   build/score EXPORT/model.pt rows.tsv
//
// Prints one line a row: the probability, the score, or the vector. Where these are not what Python wrote beside the
// ids, to 1e-4, the exit status is 1.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/script.h>

namespace {

constexpr std::size_t kBatch = 8;
constexpr double kTolerance = 1e-4;

struct Row {
  std::vector<int64_t> ids, types;  // types are empty where the model takes none
  std::vector<float> expected;      // what Python made of the row
};

struct Rows {
  int64_t pad_id = 0, pad_type = 0;
  std::vector<Row> rows;
};

template <typename Number>
std::vector<Number> numbers(const std::string& text) {
  std::istringstream stream(text);
  std::vector<Number> values;
  for (Number value; stream >> value;) values.push_back(value);
  return values;
}

// The first line holds the padding, every other one a row: ids, types and values, tabs between.
Rows read_rows(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  Rows result;
  std::string line;
  std::getline(file, line);
  if (std::sscanf(line.c_str(), "# pad_token_id=%ld pad_token_type_id=%ld", &result.pad_id, &result.pad_type) != 2)
    throw std::runtime_error(path + ": is no file of python -m pair_pkg export --ids");
  while (std::getline(file, line)) {
    const auto first = line.find('\t'), second = line.find('\t', first + 1);
    result.rows.push_back({numbers<int64_t>(line.substr(0, first)),
                           numbers<int64_t>(line.substr(first + 1, second - first - 1)),
                           numbers<float>(line.substr(second + 1))});
  }
  return result;
}

// Rows [begin, end) as the model takes them: ids, mask and, where there are some, types; (B, T) each.
std::vector<at::Tensor> pad(const Rows& all, std::size_t begin, std::size_t end) {
  std::size_t longest = 0;
  for (auto row = begin; row < end; ++row) longest = std::max(longest, all.rows[row].ids.size());
  const std::vector<int64_t> shape{static_cast<int64_t>(end - begin), static_cast<int64_t>(longest)};
  auto ids = torch::full(shape, all.pad_id, torch::kLong), types = torch::full(shape, all.pad_type, torch::kLong);
  auto mask = torch::zeros(shape, torch::kLong);
  for (auto row = begin; row < end; ++row) {
    const auto place = static_cast<int64_t>(row - begin), length = static_cast<int64_t>(all.rows[row].ids.size());
    std::copy_n(all.rows[row].ids.begin(), length, ids[place].data_ptr<int64_t>());
    std::copy_n(all.rows[row].types.begin(), all.rows[row].types.size(), types[place].data_ptr<int64_t>());
    mask[place].slice(0, 0, length).fill_(1);
  }
  if (all.rows[begin].types.empty()) return {ids, mask};
  return {ids, mask, types};
}

class Model {
 public:
  explicit Model(const std::string& path) {
    if (path.size() <= 4 || path.substr(path.size() - 4) != ".pt2") {
      traced_ = torch::jit::load(path);
      return;
    }
    try {
      package_ = std::make_unique<torch::inductor::AOTIModelPackageLoader>(path);
    } catch (const std::exception&) {
      throw std::runtime_error(
          path + ": is no package compiled for this machine; give the model_aoti.pt2 of the formats aoti or int8, made "
                 "here. The model.pt2 of the format exported runs in Python only");
    }
  }

  at::Tensor operator()(const std::vector<at::Tensor>& inputs) {
    if (package_) return package_->run(inputs).at(0);
    return traced_.forward({inputs.begin(), inputs.end()}).toTensor();
  }

 private:
  torch::jit::Module traced_;
  std::unique_ptr<torch::inductor::AOTIModelPackageLoader> package_;
};

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("usage: score MODEL.pt|MODEL.pt2 ROWS.tsv");
  const torch::InferenceMode guard;
  Model model(argv[1]);
  const Rows all = read_rows(argv[2]);
  double largest = 0;
  for (std::size_t begin = 0; begin < all.rows.size(); begin += kBatch) {
    const auto end = std::min(begin + kBatch, all.rows.size());
    const auto outputs = model(pad(all, begin, end)).reshape({static_cast<int64_t>(end - begin), -1}).contiguous();
    const auto width = static_cast<std::size_t>(outputs.size(1));
    const float* values = outputs.data_ptr<float>();
    for (auto row = begin; row < end; ++row, values += width) {
      if (all.rows[row].expected.size() != width) throw std::runtime_error("the rows are of another export");
      for (std::size_t place = 0; place < width; ++place) {
        std::printf("%s%.7g", place ? " " : "", values[place]);
        largest = std::max(largest, std::abs(static_cast<double>(values[place]) - all.rows[row].expected[place]));
      }
      std::printf("\n");
    }
  }
  std::fprintf(stderr, "%zu rows, the largest difference from Python is %.2g\n", all.rows.size(), largest);
  return largest <= kTolerance ? 0 : 1;  // false for NaN too
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << "\n";
  return 2;
}
