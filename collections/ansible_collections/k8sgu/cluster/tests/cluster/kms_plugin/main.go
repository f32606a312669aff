// A KMS v2 provider for tests: AES-GCM with keys from a file. https://kubernetes.io/docs/tasks/administer-cluster/kms-provider/
//
//	kms_plugin SOCKET KEYS
//
// KEYS has one key a line, 32 bytes in hexadecimal; the last one encrypts, all of them decrypt. It is read anew for every
// question, so that a line that is added is the next key. Whoever may read the file can read everything: not for production.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"k8s.io/kms/pkg/service"
)

type provider struct{ path string }

type key struct {
	id   string
	aead cipher.AEAD
}

func (p provider) keys() ([]key, error) {
	text, err := os.ReadFile(p.path)
	if err != nil {
		return nil, err
	}
	var found []key
	for _, line := range strings.Fields(string(text)) {
		secret, err := hex.DecodeString(line)
		if err != nil || len(secret) != 32 {
			return nil, fmt.Errorf("%s: a line is not 32 bytes in hexadecimal", p.path)
		}
		block, err := aes.NewCipher(secret)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(secret)
		found = append(found, key{hex.EncodeToString(sum[:8]), aead})
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: no key", p.path)
	}
	return found, nil
}

func (p provider) Status(context.Context) (*service.StatusResponse, error) {
	keys, err := p.keys()
	if err != nil {
		return nil, err
	}
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: keys[len(keys)-1].id}, nil
}

func (p provider) Encrypt(_ context.Context, _ string, data []byte) (*service.EncryptResponse, error) {
	keys, err := p.keys()
	if err != nil {
		return nil, err
	}
	last := keys[len(keys)-1]
	nonce := make([]byte, last.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return &service.EncryptResponse{Ciphertext: last.aead.Seal(nonce, nonce, data, nil), KeyID: last.id}, nil
}

func (p provider) Decrypt(_ context.Context, _ string, request *service.DecryptRequest) ([]byte, error) {
	keys, err := p.keys()
	if err != nil {
		return nil, err
	}
	for _, one := range keys {
		size := one.aead.NonceSize()
		if one.id == request.KeyID && len(request.Ciphertext) > size {
			return one.aead.Open(nil, request.Ciphertext[:size], request.Ciphertext[size:], nil)
		}
	}
	return nil, fmt.Errorf("no key %s", request.KeyID)
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: kms_plugin SOCKET KEYS")
	}
	// Left by one that was killed.
	_ = os.Remove(os.Args[1])
	log.Fatal(service.NewGRPCService(os.Args[1], 5*time.Second, provider{os.Args[2]}).ListenAndServe())
}
