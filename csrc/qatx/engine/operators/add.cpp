#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

// Inputs: two codes tensors of one shape. Attribute clamp.
class Add final : public Operator {
 public:
  explicit Add(const NodeReader& node)
      : name_(node.name()), a_(node.input(0)), b_(node.input(1)), output_(node) {
    node.check_input_count(2, 2);
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    TORCH_CHECK_VALUE(inputs[0] == inputs[1], "qatx program: add '", name_,
                      "' takes two inputs of one shape, got ", at::IntArrayRef(inputs[0]), " and ",
                      at::IntArrayRef(inputs[1]));
    return inputs[0];
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  void run(std::span<const Buffer> inputs, Buffer output, int64_t n) const {
    parallel_rows(n, 1, [&](int64_t begin, int64_t end) {
      kernels::active().elementwise.add(inputs[0].codes() + begin, a_, inputs[1].codes() + begin,
                                        b_, end - begin, output_.to(inputs, output, n, begin));
    });
  }

 private:
  std::string name_;
  kernels::QParams a_;
  kernels::QParams b_;
  Output output_;
};

class AddStep final : public Step {
 public:
  AddStep(const Add& op, int64_t n) : op_(op), n_(n) {}
  void run(std::span<const Buffer> inputs, Buffer output) const override {
    op_.run(inputs, output, n_);
  }

 private:
  const Add& op_;
  int64_t n_;
};

std::unique_ptr<Step> Add::plan(std::span<const Shape> inputs) const {
  return std::make_unique<AddStep>(*this, c10::multiply_integers(inputs[0]));
}

}  // namespace

std::unique_ptr<Operator> make_add(const NodeReader& node) { return std::make_unique<Add>(node); }

}  // namespace qatx::engine
