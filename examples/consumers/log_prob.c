/* Log-densities from an exported flow, by TensorFlow's C library alone.
 *
 *   log_prob EXPORT INPUT_TENSOR OUTPUT_TENSOR SIZE < rows
 *
 * EXPORT is the directory that FlowModel.export wrote; the two tensors are those that its
 * assets.extra/manifest.json names for the signature log_prob, such as log_prob_x:0; SIZE is the
 * number of entries of one event. Rows of SIZE float32 (binary, native order) come in on stdin,
 * one log-density in nats a row goes out, as text.
 *
 * The library ships in TensorFlow's wheel; with TF the directory of the package tensorflow:
 *
 *   cc log_prob.c -I$TF/include $TF/libtensorflow_cc.so.2 $TF/libtensorflow_framework.so.2 \
 *      -Wl,-rpath,$TF -o log_prob
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static void check(TF_Status* status, const char* what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "log_prob: %s: %s\n", what, TF_Message(status));
  exit(1);
}

/* "name:2" is output 2 of the operation "name". */
static TF_Output find(TF_Graph* graph, const char* tensor) {
  char name[512];
  const char* colon = strrchr(tensor, ':');
  size_t length = colon ? (size_t)(colon - tensor) : strlen(tensor);
  if (length >= sizeof(name)) length = sizeof(name) - 1;
  memcpy(name, tensor, length);
  name[length] = 0;
  TF_Output found = {TF_GraphOperationByName(graph, name), colon ? atoi(colon + 1) : 0};
  if (!found.oper) {
    fprintf(stderr, "log_prob: no tensor '%s' in the graph\n", tensor);
    exit(1);
  }
  return found;
}

int main(int argc, char** argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: log_prob EXPORT INPUT_TENSOR OUTPUT_TENSOR SIZE < rows\n");
    return 2;
  }
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status, "loading");

  int64_t size = atoll(argv[4]), rows = 0, room = 16;
  float* data = malloc(room * size * sizeof(float));
  while (fread(data + rows * size, sizeof(float), size, stdin) == (size_t)size) {
    if (++rows == room) data = realloc(data, (room *= 2) * size * sizeof(float));
  }
  int64_t shape[] = {rows, size};
  size_t bytes = rows * size * sizeof(float);
  TF_Tensor* input = TF_AllocateTensor(TF_FLOAT, shape, 2, bytes);
  memcpy(TF_TensorData(input), data, bytes);

  TF_Output from = find(graph, argv[2]), to = find(graph, argv[3]);
  TF_Tensor* output = NULL;
  TF_SessionRun(session, NULL, &from, &input, 1, &to, &output, 1, NULL, 0, NULL, status);
  check(status, "running");
  const float* log_prob = TF_TensorData(output);
  for (int64_t i = 0; i < rows; ++i) printf("%.9g\n", log_prob[i]);

  TF_DeleteTensor(input);
  TF_DeleteTensor(output);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  free(data);
  return 0;
}
