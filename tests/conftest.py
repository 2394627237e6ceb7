import os
import sys

# Before TensorFlow is imported: its start-up chatter would bury a failure's message.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(0, os.path.dirname(__file__))
