#pragma once

#include <string>
#include <utility>
#include <vector>

namespace qatx {

// A table of text: a header, a rule, rows; columns as wide as what they hold.
class Table {
 public:
  struct Column {
    std::string name;
    bool right = false;  // aligned to the right
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // As many cells as there are columns.
  void add_row(std::vector<std::string> cells);
  // Lines that end in a newline, without blanks before it.
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace qatx
