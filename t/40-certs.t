#!/usr/bin/perl
# `make certs`: the certificates of protocol.md 9.2, within seconds, never over those that are there unless told so.
use strict;
use warnings;
use HyperTest;
use Test::More;
use Time::HiRes qw(time);

my ($certs, $directory) = map { tmp() . "/$_" } qw(certs directory);
my $tool = source() . '/tools/make-certs';
sub make_certs { return run_program([ $tool, @_, '--names', 'hd-1 b.ga', $certs, $directory ]) }
sub contents { return { map { $_ => read_file($_) } glob "$certs/* $directory/*" } }
sub x509 { my ($file, @args) = @_; return (run_program([ 'openssl', 'x509', '-in', $file, '-noout', @args ]))[1] }

my $began = time;
my ($code, $out, $err) = make_certs();
is($code, 0, 'made') or diag $err;
cmp_ok(time - $began, '<', 30 * slow_factor(), 'within seconds');
my $first = contents();
my @kinds = map { ($_, "$_-alt", "$_-sign", "$_-sign-alt") } qw(hd-1 b.ga);
my @want = map { "$certs/$_" } 'intermediate.crt', 'intermediate.csr', 'intermediate.key', 'intermediate.pub', 'root.crt', 'root.key',
    map { my $k = $_; map { "$k.$_" } qw(crt csr key pub) } @kinds;
is_deeply([ sort keys %$first ], [ sort @want, "$directory/002_certificates.json" ], 'all files, and no other');
is_deeply([ grep { ((stat)[2] & 0777) != 0600 } grep { /\.key$/ } @want ], [], 'keys are for their owner only');
for my $k (@kinds) {
	my $pem = () = $first->{"$certs/$k.crt"} =~ /BEGIN CERTIFICATE/g;
	is($pem, 2, "$k.crt: leaf and intermediate");
	is((run_program([ 'openssl', 'verify', '-CAfile', "$certs/root.crt", '-untrusted', "$certs/intermediate.crt", "$certs/$k.crt" ]))[0], 0, "$k.crt: of the CA");
}
like(x509("$certs/hd-1.crt", '-ext', 'subjectAltName', '-subject'), qr/DNS:hd-1, DNS:\*\.hd-1\.local.*CN = hd-1/s, 'hd-1: its names');
like(x509("$certs/hd-1-sign.crt", '-ext', 'subjectAltName,keyUsage'), qr{Digital Signature.*URI:iris-name://hd-1, URI:iris-group://sd-admin, DNS:hd-1}s, 'hd-1-sign: the admin');
unlike(x509("$certs/b.ga-sign.crt", '-ext', 'subjectAltName'), qr/sd-admin/, 'b.ga-sign: no admin');
my %record = map { $_->{name} => $_->{data} } @{ json_value($first->{"$directory/002_certificates.json"})->{records} };
for my $name (qw(hd-1 b.ga)) {
	my @f = map { x509("$certs/$_.crt", '-fingerprint', '-sha256') =~ /=(\S+)/ ? lc $1 =~ tr/://dr : '' } $name, "$name-sign";
	is_deeply($record{$name}, [ { fingerprint => $f[1], key_usage => 'signing' }, { fingerprint => $f[0], key_usage => 'encryption' } ], "$name: its record pins both");
}

($code, $out, $err) = make_certs();
is($code, 1, 'a second time: refused');
like($err, qr/root\.key is there already; .*make certs FORCE=1/, 'with what to do');
is_deeply(contents(), $first, 'and nothing is touched');
($code, $out, $err) = run_program([ $tool, '--force', '--names', 'a/b', $certs, $directory ]);
is($code, 1, 'a name that is none: refused');
is_deeply(contents(), $first, 'and nothing is touched, even by force');
($code, $out, $err) = make_certs('--force');
is($code, 0, 'by force: made anew') or diag $err;
my $second = contents();
is_deeply([ sort keys %$second ], [ sort keys %$first ], 'the same files');
is_deeply([ grep { $second->{$_} eq $first->{$_} } keys %$second ], [], 'all of them new');
is_deeply([ glob "$certs.new.*" ], [], 'no half-made folder is left');
is((run_program([ $tool, '--frob' ]))[0], 64, 'wrong usage: 64');
hyper_done();
