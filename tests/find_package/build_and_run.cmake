# Builds and runs the project beside this file in a temporary folder, with a qatx that comes in one of these ways:
#   prefix   installed with cmake --install from BUILD
#   archive  unpacked from the .tar.gz that CPack makes of BUILD, which makes a .deb too
#   package  where the Python package of PYTHON says it is (qatx.cmake_prefix_path)
#   source   add_subdirectory(SOURCE)
#
#   cmake -DHOW=<way> -DSOURCE=<folder> -DBUILD=<folder> -DLIBTORCH=<folder> [-DPYTHON=<interpreter>] -P build_and_run.cmake
cmake_minimum_required(VERSION 3.22)

set(work "${BUILD}/consumers/${HOW}")
file(REMOVE_RECURSE "${work}")
file(MAKE_DIRECTORY "${work}")

function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY "${work}" COMMAND_ERROR_IS_FATAL ANY OUTPUT_VARIABLE output)
  set(output "${output}" PARENT_SCOPE)
endfunction()

set(arguments "-DLibTorch_ROOT=${LIBTORCH}")
if(HOW STREQUAL "prefix")
  run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${work}/prefix" --component library)
  list(APPEND arguments "-DCMAKE_PREFIX_PATH=${work}/prefix")
elseif(HOW STREQUAL "archive")
  run("${CMAKE_CPACK_COMMAND}" --config "${BUILD}/CPackConfig.cmake" -B "${work}/packages")
  file(GLOB packages "${work}/packages/*.deb")
  if(NOT packages)
    message(FATAL_ERROR "CPack has made no .deb in ${work}/packages")
  endif()
  file(GLOB archive "${work}/packages/*.tar.gz")
  file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${work}/unpacked")
  file(GLOB prefix "${work}/unpacked/*")
  list(APPEND arguments "-DCMAKE_PREFIX_PATH=${prefix}")
elseif(HOW STREQUAL "package")
  run("${PYTHON}" -c "print(__import__('qatx').cmake_prefix_path, end='')")
  list(APPEND arguments "-DCMAKE_PREFIX_PATH=${output}")
  list(POP_FRONT arguments) # LibTorch is beside the package
elseif(HOW STREQUAL "source")
  list(APPEND arguments "-DQATX_SOURCE_DIR=${SOURCE}" -DCMAKE_BUILD_TYPE=RelWithDebInfo)
else()
  message(FATAL_ERROR "HOW must be prefix, archive, package or source, got '${HOW}'")
endif()

run("${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}" -B "${work}/build" -G Ninja ${arguments})
run("${CMAKE_COMMAND}" --build "${work}/build")
run("${work}/build/consumer")
string(REGEX MATCHALL "\n" lines "${output}")
list(LENGTH lines count)
if(NOT count EQUAL 144) # 4 channels of 6 x 6
  message(FATAL_ERROR "the consumer printed ${count} numbers instead of 144")
endif()
file(REMOVE_RECURSE "${work}")
